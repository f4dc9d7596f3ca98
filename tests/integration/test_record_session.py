"""record() on a SQLAlchemy session: the event lives and dies with the innermost transaction it was recorded in."""

from __future__ import annotations

import gc
import weakref

import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import outbox
from outbox import TransactionError, record
from tests.support.recording import Order, Statements, emptied, engine_of, recorded, recorded_types, shop_database


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url):
    return emptied(shared_url)


@pytest.fixture(params=["psycopg", "psycopg2"])
def shop(request, database_url):
    engine = engine_of(database_url, request.param)
    yield engine
    engine.dispose()


@pytest.fixture
def session(shop):
    with Session(shop) as session:
        yield session


def test_commit_writes_the_event_as_it_was_returned(session, database_url):
    told = record(session, "order.created", {"id": 7}, key="7", tenant="acme")
    assert recorded(database_url) == []
    session.commit()
    assert recorded(database_url) == [(told.id, "order.created", "7", "acme", '{"id":7}')]


def test_rollback_drops_the_event(session, database_url):
    record(session, "a", 1)
    session.rollback()
    session.commit()
    assert recorded(database_url) == []


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
def test_close_without_commit_drops_the_event(session, database_url):
    record(session, "a", 1)
    session.close()
    session.commit()
    assert recorded(database_url) == []


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
def test_close_inside_a_savepoint_drops_all(session, database_url):
    record(session, "outer", 1)
    session.begin_nested()
    record(session, "inner", 1)
    session.close()
    record(session, "next", 1)
    session.commit()
    assert recorded_types(database_url) == ["next"]


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
def test_invalidate_drops_the_event(session, database_url):
    session.connection()
    record(session, "a", 1)
    session.invalidate()
    session.commit()
    assert recorded(database_url) == []


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
def test_a_session_that_is_forgotten_leaves_nothing(shop, database_url):
    session = Session(shop)
    session.add(Order())
    session.flush()
    record(session, "a", 1)
    assert shop.pool.checkedout() == 1
    forgotten = weakref.ref(session)
    del session
    gc.collect()
    assert forgotten() is None
    assert shop.pool.checkedout() == 0
    assert recorded(database_url) == []


def test_a_session_is_used_again_without_repeats(session, database_url):
    for name in ("first", "second", "third"):
        record(session, name, 1)
        session.commit()
    record(session, "never", 1)
    session.rollback()
    record(session, "fourth", 1)
    session.commit()
    assert recorded_types(database_url) == ["first", "second", "third", "fourth"]


def test_order_is_that_of_record(session, database_url):
    types = [f"n{number}" for number in range(50)]
    for name in types:
        record(session, name, 1)
    session.commit()
    assert recorded_types(database_url) == types


def test_all_are_written_in_one_statement_after_the_rows_they_tell_of(shop, session, database_url):
    statements = Statements(shop)
    record(session, "first", 1)
    session.add(Order())
    session.flush()
    record(session, "second", 1)
    session.add(Order())
    session.flush()
    session.add(Order())
    record(session, "third", 1)
    session.commit()
    assert len(statements.of_events) == 1
    assert statements[-1] == statements.of_events[0]
    assert recorded_types(database_url) == ["first", "second", "third"]


@pytest.mark.case("A33")
def test_ten_thousand_events_take_a_few_statements(shop, session, database_url):
    statements = Statements(shop)
    types = [f"n{number}" for number in range(10_000)]
    for name in types:
        record(session, name, {"n": name})
    session.commit()
    assert len(statements.of_events) <= 3
    assert recorded_types(database_url) == types


def test_large_payloads_are_split_over_statements(shop, session, database_url):
    statements = Statements(shop)
    for number in range(50):
        record(session, f"n{number}", "x" * 250_000)
    session.commit()
    assert 1 < len(statements.of_events) < 5
    assert recorded_types(database_url) == [f"n{number}" for number in range(50)]


def test_a_session_that_records_nothing_sends_nothing_of_ours(shop, session):
    statements = Statements(shop)
    session.add(Order())
    session.commit()
    assert statements
    assert not statements.of_events


@pytest.mark.case("A35")
def test_data_is_taken_when_recorded(session, database_url):
    data = {"state": "new"}
    record(session, "a", data)
    data["state"] = "changed"
    session.commit()
    assert recorded(database_url)[0].payload == '{"state":"new"}'


def test_a_flushed_key_is_in_the_event(session, database_url):
    order = Order()
    session.add(order)
    session.flush()
    record(session, "order.created", {"id": order.id})
    session.commit()
    assert recorded(database_url)[0].payload == f'{{"id":{order.id}}}'


def test_no_autoflush_changes_nothing(shop, database_url):
    with Session(shop, autoflush=False) as session:
        session.add(Order())
        record(session, "a", 1)
        session.commit()
    assert recorded_types(database_url) == ["a"]


def test_begin_block_commits_the_event(shop, database_url):
    with Session(shop) as session, session.begin():
        record(session, "a", 1)
    assert recorded_types(database_url) == ["a"]


def test_begin_block_that_raises_drops_the_event(shop, database_url):
    def sell():
        with Session(shop) as session, session.begin():
            record(session, "a", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sell()
    assert recorded(database_url) == []


def test_without_autobegin_a_transaction_must_have_begun(shop, database_url):
    with Session(shop, autobegin=False) as session:
        with pytest.raises(TransactionError, match=r"session\.begin"):
            record(session, "a", 1)
        with session.begin():
            record(session, "b", 1)
    assert recorded_types(database_url) == ["b"]


# Savepoints


def test_a_released_savepoint_hands_its_events_up(shop, session, database_url):
    record(session, "before", 1)
    with session.begin_nested():
        record(session, "inside", 1)
    statements = Statements(shop)
    record(session, "after", 1)
    assert not statements
    session.commit()
    assert recorded_types(database_url) == ["before", "inside", "after"]


@pytest.mark.case("A30")
def test_a_rolled_back_savepoint_drops_its_events_only(session, database_url):
    record(session, "before", 1)
    savepoint = session.begin_nested()
    record(session, "inside", 1)
    session.add(Order())
    session.flush()
    savepoint.rollback()
    record(session, "after", 1)
    session.commit()
    assert recorded_types(database_url) == ["before", "after"]


def test_an_exception_in_a_savepoint_block_drops_its_events_only(session, database_url):
    def sell():
        with session.begin_nested():
            record(session, "inside", 1)
            raise ZeroDivisionError

    record(session, "before", 1)
    with pytest.raises(ZeroDivisionError):
        sell()
    session.commit()
    assert recorded_types(database_url) == ["before"]


def test_an_outer_event_written_inside_a_rolled_back_savepoint_is_written_again(session, database_url):
    record(session, "root", 1)
    outer = session.begin_nested()
    record(session, "outer", 1)
    with session.begin_nested():
        record(session, "inner", 1)
    outer.rollback()
    record(session, "last", 1)
    session.commit()
    assert recorded_types(database_url) == ["root", "last"]


def test_middle_savepoint_keeps_its_events_when_the_inner_one_rolls_back(session, database_url):
    with session.begin_nested():
        record(session, "middle", 1)
        inner = session.begin_nested()
        record(session, "inner", 1)
        inner.rollback()
        with session.begin_nested():
            record(session, "other", 1)
    session.commit()
    assert recorded_types(database_url) == ["middle", "other"]


def test_a_root_rollback_drops_released_savepoints_too(session, database_url):
    with session.begin_nested():
        record(session, "inside", 1)
    session.rollback()
    session.commit()
    assert recorded(database_url) == []


def test_a_root_rollback_inside_a_savepoint_drops_all(session, database_url):
    record(session, "root", 1)
    session.begin_nested()
    record(session, "inside", 1)
    session.rollback()
    record(session, "next", 1)
    session.commit()
    assert recorded_types(database_url) == ["next"]


def test_a_commit_over_a_forgotten_savepoint_writes_all_once(session, database_url):
    record(session, "root", 1)
    session.begin_nested()
    record(session, "first", 1)
    session.begin_nested()
    record(session, "second", 1)
    session.commit()
    assert recorded_types(database_url) == ["root", "first", "second"]


def test_an_outer_savepoint_released_over_a_forgotten_inner_one(session, database_url):
    outer = session.begin_nested()
    record(session, "outer", 1)
    session.begin_nested()
    record(session, "inner", 1)
    outer.commit()
    record(session, "root", 1)
    session.commit()
    assert recorded_types(database_url) == ["outer", "inner", "root"]


def test_an_outer_savepoint_rolled_back_over_a_forgotten_inner_one(session, database_url):
    record(session, "root", 1)
    outer = session.begin_nested()
    record(session, "outer", 1)
    session.begin_nested()
    record(session, "inner", 1)
    outer.rollback()
    session.commit()
    assert recorded_types(database_url) == ["root"]


def test_many_savepoints_one_after_the_other(session, database_url):
    for number in range(20):
        savepoint = session.begin_nested()
        record(session, f"n{number}", 1)
        savepoint.commit() if number % 2 else savepoint.rollback()
    session.commit()
    assert recorded_types(database_url) == [f"n{number}" for number in range(1, 20, 2)]


# Failures


def test_a_failed_flush_in_a_savepoint_drops_what_it_held(session, database_url):
    def sell_twice():
        with session.begin_nested():
            record(session, "inside", 1)
            session.add(Order(number=1))
            session.flush()

    record(session, "root", 1)
    session.add(Order(number=1))
    with pytest.raises(IntegrityError):
        sell_twice()
    record(session, "after", 1)
    session.commit()
    assert recorded_types(database_url) == ["root", "after"]


def test_a_failed_flush_makes_record_say_roll_back_first(session, database_url):
    session.add_all([Order(number=1), Order(number=1)])
    with pytest.raises(IntegrityError):
        session.flush()
    with pytest.raises(TransactionError, match="rolled back"):
        record(session, "a", 1)
    session.rollback()
    record(session, "b", 1)
    session.commit()
    assert recorded_types(database_url) == ["b"]


def test_a_flush_that_fails_in_commit_drops_the_event(session, database_url):
    record(session, "a", 1)
    session.add_all([Order(number=1), Order(number=1)])
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    session.commit()
    assert recorded(database_url) == []


def test_a_commit_that_the_database_refuses_leaves_no_event(session, database_url):
    record(session, "a", 1)
    session.execute(sqlalchemy.text("create table late (number integer unique deferrable initially deferred)"))
    session.execute(sqlalchemy.text("insert into late values (1), (1)"))
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    record(session, "b", 1)
    session.commit()
    assert recorded_types(database_url) == ["b"]


def test_a_refused_record_leaves_earlier_work_as_it_was(session, database_url):
    session.add(Order(number=1))
    session.flush()
    record(session, "good", 1)
    for bad in ({"x": float("nan")}, "\0", object()):
        with pytest.raises(outbox.PayloadError):
            record(session, "bad", bad)
    session.commit()
    assert recorded_types(database_url) == ["good"]
    assert session.query(Order).count() == 1


def test_a_transaction_that_failed_in_sql_never_loses_the_event_in_silence(session):
    with pytest.raises(sqlalchemy.exc.DBAPIError):
        session.execute(sqlalchemy.text("select 1 / 0"))
    record(session, "a", 1)
    with pytest.raises(TransactionError, match="failed"):
        session.commit()


# Listeners of the application


def test_a_listener_may_record_in_the_first_flush_of_all_within_commit(shop, session, database_url):
    statements = Statements(shop)

    @event.listens_for(session, "before_flush")
    def _record(session, *_):
        record(session, "flushed", len(session.new))

    session.add(Order())
    session.commit()
    assert recorded_types(database_url) == ["flushed"]
    assert statements[-1] in statements.of_events


def test_a_listener_may_record_after_the_flush(session, database_url):
    @event.listens_for(session, "after_flush")
    def _record(session, *_):
        record(session, "flushed", 1)

    record(session, "before", 1)
    session.add(Order())
    session.commit()
    assert recorded_types(database_url) == ["before", "flushed"]


def test_a_later_before_commit_listener_may_record(session, database_url):
    @event.listens_for(session, "before_commit")
    def _record(session):
        record(session, "late", 1)

    record(session, "early", 1)
    session.commit()
    assert recorded_types(database_url) == ["early", "late"]


def test_a_later_before_commit_listener_may_be_the_first_to_record(session, database_url):
    @event.listens_for(session, "before_commit")
    def _record(session):
        session.add(Order())
        session.flush()
        record(session, "late", 1)

    session.commit()
    assert recorded_types(database_url) == ["late"]


def test_after_commit_is_too_late_and_says_so(session, database_url):
    refused = []

    @event.listens_for(session, "after_commit")
    def _record(session):
        with pytest.raises(TransactionError) as error:
            record(session, "late", 1)
        refused.append(error.value)

    record(session, "early", 1)
    session.commit()
    assert recorded_types(database_url) == ["early"]
    assert refused


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_savepoint_in_the_commits_own_flush_does_not_make_what_follows_wait(session, database_url, outcome):
    @event.listens_for(session, "before_commit")
    def _add(session):
        session.add(Order())

    @event.listens_for(session, "before_flush")
    def _record(session, *_):
        getattr(session.begin_nested(), outcome)()
        record(session, "flushed", 1)

    session.commit()
    assert recorded_types(database_url) == ["flushed"]


def test_a_listener_may_record_when_a_forgotten_savepoint_ends_with_the_commit(session, database_url):
    @event.listens_for(session, "after_transaction_end")
    def _record(session, transaction):
        if transaction.nested:
            record(session, "ended", 1)

    session.begin_nested()
    session.begin_nested()
    session.commit()
    assert recorded_types(database_url) == ["ended", "ended"]


def test_a_release_that_fails_leaves_the_session_as_before(shop, session, database_url):
    statements = Statements(shop)

    @event.listens_for(session, "before_commit")
    def _fail(session):
        if session.in_nested_transaction():
            raise ZeroDivisionError

    savepoint = session.begin_nested()
    with pytest.raises(ZeroDivisionError):
        savepoint.commit()
    savepoint.rollback()
    record(session, "waits", 1)
    assert not statements.of_events
    session.commit()
    assert recorded_types(database_url) == ["waits"]


@pytest.mark.parametrize("hook", ["before_flush", "after_flush"])
@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_savepoint_inside_a_flush_belongs_to_the_savepoint_around_it(session, database_url, outcome, hook):
    @event.listens_for(session, hook)
    def _record(session, *_):
        with session.begin_nested():
            record(session, "flushed", 1)

    record(session, "root", 1)
    savepoint = session.begin_nested()
    session.add(Order())
    session.flush()
    getattr(savepoint, outcome)()
    session.commit()
    assert recorded_types(database_url) == (["root", "flushed"] if outcome == "commit" else ["root"])


# Other kinds of transaction


def test_a_prepared_transaction_carries_its_events_and_takes_no_more(shop, database_url):
    with shop.connect() as connection:
        if connection.exec_driver_sql("show max_prepared_transactions").scalar() == "0":
            pytest.skip("the server has max_prepared_transactions = 0")
    with Session(shop, twophase=True) as session:
        record(session, "before", 1)
        session.prepare()
        with pytest.raises(TransactionError, match="prepared"):
            record(session, "after", 1)
        assert recorded(database_url) == []
        session.commit()
    assert recorded_types(database_url) == ["before"]


@pytest.mark.case("A27")
def test_autocommit_engine_is_refused_at_once(shop):
    with (
        Session(shop.execution_options(isolation_level="AUTOCOMMIT")) as session,
        pytest.raises(TransactionError, match="autocommit"),
    ):
        record(session, "a", 1)


@pytest.mark.case("A27")
def test_autocommit_connection_is_refused_before_anything_is_written(shop, database_url):
    with Session(shop) as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        record(session, "a", 1)
        with pytest.raises(TransactionError, match="autocommit"):
            session.commit()
    assert recorded(database_url) == []


@pytest.mark.case("A27")
def test_an_engine_made_in_autocommit_is_refused(database_url, shop):
    engine = engine_of(database_url, shop.dialect.driver, isolation_level="AUTOCOMMIT")
    with Session(engine) as session:
        record(session, "a", 1)
        with pytest.raises(TransactionError, match="autocommit"):
            session.commit()
    engine.dispose()
    assert recorded(database_url) == []


@pytest.mark.case("A29")
def test_a_transaction_known_to_be_read_only_is_refused_without_sql(shop, database_url):
    statements = Statements(shop)
    with Session(shop) as session:
        session.connection(execution_options={"postgresql_readonly": True})
        record(session, "a", 1)
        with pytest.raises(TransactionError, match="read-only"):
            session.commit()
    assert not statements.of_events
    assert recorded(database_url) == []


@pytest.mark.case("A29")
def test_a_transaction_that_turns_out_read_only_is_named(session):
    session.execute(sqlalchemy.text("set transaction read only"))
    record(session, "a", 1)
    with pytest.raises(TransactionError, match="read-only"):
        session.commit()


def test_a_missing_schema_is_one_clear_line_without_the_payload(empty_database_url):
    engine = engine_of(empty_database_url)
    with Session(engine) as session:
        record(session, "a", "a private matter")
        with pytest.raises(outbox.SchemaError, match="relay migrate") as error:
            session.commit()
    engine.dispose()
    assert "private" not in f"{error.value} {error.value.__cause__}"
    assert "outbox.events" in str(error.value.__cause__)
