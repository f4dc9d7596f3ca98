"""One event for each tenant and idempotency key: whoever records it, at the same time, in any order, how long after."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import RecordError, arecord, record
from outbox.ids import parse_id
from outbox.recording.idempotency import content_of, id_of_key
from tests.support.recording import Order, Statements, emptied, engine_of, recorded, shop_database
from tests.support.waiting import wait_until

OTHER = "idempotency_key: 'k' was used for an event with another type, key or data; give what is another event a key"
TABLES = ("outbox.idempotency_keys", "outbox.idempotency_requests")


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url):
    with psycopg.connect(shared_url) as connection:
        for table in TABLES:
            connection.execute(f"delete from {table}")
    yield emptied(shared_url)
    with psycopg.connect(shared_url) as connection:
        assert connection.execute("select * from outbox.idempotency_requests").fetchall() == []


@pytest.fixture
def engine(database_url):
    engine = engine_of(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def open_connection(database_url):
    """Open psycopg connections, as many as are asked for."""
    opened = []

    def open_one(**options):
        opened.append(psycopg.connect(database_url, **options))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()
    with psycopg.connect(database_url) as connection:
        connection.execute("update outbox.settings set value = 7 where name = 'idempotency_days' and value <> 7")


def is_waiting(open_connection, connection):
    """Whether this connection's command waits for another transaction."""
    watching = open_connection(autocommit=True)
    asked = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
    return lambda: watching.execute(asked, (connection.info.backend_pid,)).fetchone()[0]


def sql_record(connection, key="k", data='{"n":1}', type_="a"):
    asked = "select outbox.record(%s, %s, idempotency_key => %s)"
    return connection.execute(asked, (type_, data, key)).fetchone()[0]


@pytest.mark.parametrize(("tenant", "key"), [("", "k"), ("t", "k"), ("", "tk"), ("é", "ключ"), ("", "k" * 256)])
def test_the_id_is_made_of_tenant_and_key_in_python_as_in_sql(open_connection, tenant, key):
    made = open_connection().execute("select outbox.id_of_key(%s, %s)", (tenant, key)).fetchone()[0]
    assert made == id_of_key(tenant, key)
    assert made.version == 8
    assert made.variant == "specified in RFC 4122"


@pytest.mark.parametrize(
    "content", [("a", None, "{}"), ("a", "", "{}"), ("a", "k", "{}"), ("a.b", "é", '"\u20ac"'), ("a", None, "\x01")]
)
def test_what_must_be_the_same_is_hashed_in_python_as_in_sql(open_connection, content):
    hashed = open_connection().execute("select outbox.content_of(%s, %s, %s)", content).fetchone()[0]
    assert hashed == content_of(*content)


def test_no_two_contents_have_one_hash():
    contents = [("a", None, "1"), ("a", "", "1"), ("a", "k", "1"), ("b", "k", "1"), ("a", "k", "2"), ("a", "kx", "")]
    assert len({content_of(*content) for content in contents}) == len(contents)


class TestTheFirstIsReturned:
    @pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
    def test_on_sessions_and_connections_of_sqlalchemy(self, database_url, driver):
        engine = engine_of(database_url, driver)
        told = set()
        for _ in range(2):
            with Session(engine) as session:
                told |= {record(session, "a", {"n": 1}, idempotency_key="k").id for _ in range(2)}
                session.commit()
            with engine.begin() as connection:
                told |= {record(connection, "a", {"n": 1}, idempotency_key="k").id for _ in range(2)}
        engine.dispose()
        assert [told.pop()] == [row.id for row in recorded(database_url)]
        assert told == set()

    def test_on_raw_connections_and_in_sql(self, database_url, open_connection):
        told = set()
        with open_connection() as connection:
            told |= {record(connection, "a", {"n": 1}, idempotency_key="k").id, sql_record(connection)}
        with open_connection() as connection, connection.pipeline():
            told |= {record(connection, "a", {"n": 1}, idempotency_key="k").id}

        async def program():
            async with await psycopg.AsyncConnection.connect(database_url) as connection:
                yield (await arecord(connection, "a", {"n": 1}, idempotency_key="k")).id
            connection = await asyncpg.connect(database_url)
            async with connection.transaction():
                yield (await arecord(connection, "a", {"n": 1}, idempotency_key="k")).id
            await connection.close()

        async def collected():
            return {event_id async for event_id in program()}

        told |= asyncio.run(collected())
        assert [told.pop()] == [row.id for row in recorded(database_url)]
        assert told == set()

    @pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
    def test_on_asynchronous_sessions_inside_and_outside_run_sync(self, database_url, driver):
        async def program():
            engine = create_async_engine(make_url(database_url).set(drivername=f"postgresql+{driver}"))
            told = set()
            for _ in range(2):
                async with AsyncSession(engine) as session:
                    told.add(record(session, "a", 1, idempotency_key="k").id)
                    with pytest.raises(RecordError, match=OTHER):
                        record(session, "a", 2, idempotency_key="k")
                    await session.commit()
            async with AsyncSession(engine) as session:
                told.add((await session.run_sync(record, "a", 1, idempotency_key="k")).id)
                with pytest.raises(RecordError, match=OTHER):
                    await session.run_sync(record, "a", 2, idempotency_key="k")
                record(session, "a", 3, idempotency_key="k")
                with pytest.raises(RecordError, match=OTHER):  # the commit is the first to ask
                    await session.commit()
            await engine.dispose()
            return told

        told = asyncio.run(program())
        assert [(told.pop(), "a", None, "", "1")] == recorded(database_url)
        assert told == set()

    def test_another_tenant_has_keys_of_its_own(self, database_url, engine):
        with Session(engine) as session:
            one = record(session, "a", 1, tenant="one", idempotency_key="k")
            other = record(session, "a", 2, tenant="other", idempotency_key="k")
            session.commit()
        assert [row.id for row in recorded(database_url)] == [one.id, other.id]

    def test_order_is_kept_among_events_with_and_without_keys(self, database_url, engine):
        with Session(engine) as session:
            for number in range(9):
                key = f"k{9 - number}" if number % 3 else None
                record(session, "a", number, idempotency_key=key, priority=number % 2)
            session.commit()
        assert [row.payload for row in recorded(database_url)] == [str(number) for number in range(9)]

    def test_all_its_columns_are_written(self, engine, open_connection):
        parent = f"00-{'a' * 32}-{'b' * 16}-01"
        with Session(engine) as session:
            record(
                session,
                "a",
                1,
                key="7",
                tenant="t",
                idempotency_key="k",
                priority=3,
                trace={"traceparent": parent},
                available_at=outbox.recording.record.timedelta(hours=1),
            )
            session.commit()
        row = (
            open_connection()
            .execute("select key, tenant, priority, trace, available_at > now() + interval '59 min' from outbox.events")
            .fetchone()
        )
        assert row == ("7", "t", 3, parent, True)


class TestOtherContent:
    @pytest.mark.parametrize(("type_", "data", "key"), [("b", 1, None), ("a", 2, None), ("a", 1, "7")])
    def test_is_refused_when_it_is_recorded_and_the_transaction_goes_on(self, database_url, engine, type_, data, key):
        with Session(engine) as session:
            first = record(session, "a", 1, idempotency_key="k")
            with pytest.raises(RecordError, match=OTHER):
                record(session, type_, data, key=key, idempotency_key="k")
            session.commit()
        with Session(engine) as session:
            session.add(Order(number=1))
            session.flush()
            with pytest.raises(RecordError, match=OTHER):
                record(session, type_, data, key=key, idempotency_key="k")
            second = record(session, "a", 2)
            session.commit()
            assert session.query(Order).count() == 1
        with engine.begin() as connection:
            with pytest.raises(RecordError, match=OTHER):
                record(connection, type_, data, key=key, idempotency_key="k")
            third = record(connection, "a", 3)
        assert [row.id for row in recorded(database_url)] == [first.id, second.id, third.id]

    def test_a_later_time_or_trace_is_no_other_content(self, engine, database_url):
        with Session(engine) as session:
            record(session, "a", 1, idempotency_key="k")
            record(
                session, "a", 1, idempotency_key="k", priority=3, trace={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
            )
            session.commit()
        assert len(recorded(database_url)) == 1

    def test_sql_says_so_with_the_mend(self, open_connection):
        with open_connection() as connection:
            sql_record(connection)
            connection.commit()
            with pytest.raises(psycopg.errors.UniqueViolation, match="idempotency_key: 'k' was used") as refusal:
                sql_record(connection, data="2")
        assert refusal.value.diag.message_hint == "Give what is another event a key of its own."

    def test_of_two_transactions_at_the_same_time_the_second_fails_when_it_commits(
        self, database_url, engine, open_connection
    ):
        with Session(engine) as one, Session(engine) as other:
            record(one, "a", 1, idempotency_key="k")
            record(other, "a", 2, idempotency_key="k")
            one.commit()
            with pytest.raises(RecordError, match=OTHER):  # found just before its COMMIT
                other.commit()
        first, second = open_connection(), open_connection()
        record(first, "a", 1, idempotency_key="k2")
        record(second, "a", 2, idempotency_key="k2")
        first.commit()
        with pytest.raises(psycopg.errors.UniqueViolation, match="idempotency_key: of two transactions"):
            second.commit()
        assert [row.payload for row in recorded(database_url)] == ["1", "1"]


class TestAtTheSameTime:
    def test_both_know_the_id_at_once_and_one_event_is_written(self, database_url, open_connection):
        first, second = open_connection(), open_connection()
        told = [record(connection, "a", 1, idempotency_key="k").id for connection in (first, second)]
        second.commit()
        first.commit()
        assert [row.id for row in recorded(database_url)] == list(set(told))

    def test_who_waits_for_one_that_rolls_back_has_the_key(self, database_url, open_connection):
        first, second = open_connection(), open_connection()
        record(first, "a", 1, idempotency_key="k")
        first.execute("set constraints all immediate")  # it claims the key now, and stays open
        record(second, "a", 2, idempotency_key="k")
        with ThreadPoolExecutor(1) as pool:
            commit = pool.submit(second.commit)
            wait_until(is_waiting(open_connection, second))
            first.rollback()
            commit.result(10)
        assert [row.payload for row in recorded(database_url)] == ["2"]

    def test_who_waits_for_one_that_commits_takes_its_own_event_back(self, database_url, open_connection):
        first, second = open_connection(), open_connection()
        record(first, "a", 1, idempotency_key="k")
        first.execute("set constraints all immediate")
        record(second, "a", 1, idempotency_key="k")
        record(second, "b", 1)
        with ThreadPoolExecutor(1) as pool:
            commit = pool.submit(second.commit)
            wait_until(is_waiting(open_connection, second))
            first.commit()
            commit.result(10)
        assert [row.type for row in recorded(database_url)] == ["a", "b"]

    @pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
    def test_two_that_use_two_keys_in_opposite_order_both_commit(self, database_url, open_connection, isolation):
        first, second = open_connection(), open_connection()
        barrier = threading.Barrier(2)

        def program(connection, *keys):
            connection.execute(f"set transaction isolation level {isolation}")
            for key in keys:
                record(connection, "a", 1, idempotency_key=key)
                barrier.wait()
            try:
                connection.commit()
            except psycopg.errors.SerializationFailure:
                assert isolation == "repeatable read"

        with ThreadPoolExecutor(2) as pool:
            for running in (pool.submit(program, first, "a", "b"), pool.submit(program, second, "b", "a")):
                running.result(10)
        assert {row.id for row in recorded(database_url)} == {
            outbox.ids.text_id("evt", id_of_key("", key)) for key in ("a", "b")
        }

    def test_each_claims_its_keys_in_one_order_whatever_the_order_it_used_them_in(self, database_url, open_connection):
        """The middle one is held: the lowest is claimed then, and the highest is free for others."""
        low, middle, high = sorted("abc", key=lambda key: id_of_key("", key).bytes)
        holder, many, first, last = (open_connection() for _ in range(4))
        record(holder, "a", 1, idempotency_key=middle)
        holder.execute("set constraints all immediate")
        for connection, keys in ((many, (high, middle, low)), (first, low), (last, high)):
            for key in keys:
                record(connection, "a", 1, idempotency_key=key)
        with ThreadPoolExecutor(2) as pool:
            commits = [pool.submit(many.commit)]
            wait_until(is_waiting(open_connection, many))
            last.commit()
            commits.append(pool.submit(first.commit))
            wait_until(is_waiting(open_connection, first))
            holder.commit()
            for commit in commits:
                commit.result(10)
        assert len(recorded(database_url)) == 3

    def test_many_transactions_with_many_keys_in_any_order_never_deadlock(self, database_url):
        """Each takes 20 of 40 keys at random, in savepoints too; some roll back."""
        dice = random.Random(8)
        programs = [(dice.sample(range(40), 20), dice.random() < 0.2) for _ in range(60)]

        def run(program):
            keys, rolls_back = program
            with psycopg.connect(database_url) as connection:
                for key in keys:
                    with connection.transaction():
                        record(connection, "a", key, idempotency_key=str(key))
                connection.rollback() if rolls_back else connection.commit()

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(run, programs))
        used = {str(key) for keys, rolls_back in programs if not rolls_back for key in keys}
        assert sorted(row.payload for row in recorded(database_url)) == sorted(used)

    def test_around_midnight_they_meet_in_the_row_of_the_day_before(self, database_url, open_connection):
        """The first claimed on the day before and has not committed: as if its clock had been behind."""
        first, second = open_connection(), open_connection()
        insert = """insert into outbox.idempotency_keys (event_id, day, event_seq, content)
            select %s, (clock_timestamp() at time zone 'UTC')::date - days, 1e9, outbox.content_of('a', null, '1')
            from unnest(array[2, 1]) days"""
        first.execute(insert, (id_of_key("", "k"),))
        record(second, "a", 1, idempotency_key="k")
        with ThreadPoolExecutor(1) as pool:
            commit = pool.submit(second.commit)
            wait_until(is_waiting(open_connection, second))
            first.commit()
            commit.result(10)
        assert recorded(database_url) == []


class TestRollback:
    def test_of_a_transaction_or_a_savepoint_frees_the_key(self, database_url, engine, open_connection):
        for data in (1, 2):
            with open_connection() as connection:
                record(connection, "a", data, idempotency_key="k")
                connection.rollback()
            with Session(engine) as session:
                record(session, "a", data, idempotency_key="k")
                session.rollback()
            with Session(engine) as session:
                savepoint = session.begin_nested()
                record(session, "a", data, idempotency_key="k")
                savepoint.rollback()
                session.commit()
        with Session(engine) as session:
            with session.begin_nested():
                record(session, "a", 3, idempotency_key="k")
            session.begin_nested()
            assert record(session, "a", 3, idempotency_key="k")
            session.commit()
            session.commit()
        assert [row.payload for row in recorded(database_url)] == ["3"]

    def test_a_savepoint_that_repeats_an_outer_event_does_not_take_it_along(self, database_url, engine):
        with Session(engine) as session:
            record(session, "a", 1, idempotency_key="k")
            savepoint = session.begin_nested()
            record(session, "a", 1, idempotency_key="k")
            savepoint.rollback()
            session.commit()
        assert len(recorded(database_url)) == 1

    def test_a_released_savepoint_and_then_the_key_again(self, database_url, engine):
        with Session(engine) as session:
            with session.begin_nested():
                record(session, "a", 1, idempotency_key="k")
            record(session, "a", 1, idempotency_key="k")
            with pytest.raises(RecordError, match=OTHER):
                record(session, "a", 2, idempotency_key="k")
            session.commit()
        assert len(recorded(database_url)) == 1


class TestTheWindow:
    def days_pass(self, connection, days):
        """Move what is claimed into the past, and return how many rows it has."""
        connection.execute("update outbox.idempotency_keys set day = day - %s", (days,))
        connection.commit()
        return connection.execute("select count(*) from outbox.idempotency_keys").fetchone()[0]

    def test_a_key_is_known_for_seven_days_and_then_it_is_new(self, database_url, open_connection):
        connection = open_connection()
        told = {sql_record(connection)}
        connection.commit()
        self.days_pass(connection, 7)
        told.add(sql_record(connection))
        connection.commit()
        assert len(recorded(database_url)) == 1
        self.days_pass(connection, 1)
        told.add(sql_record(connection, data="2"))
        connection.commit()
        assert [row.payload for row in recorded(database_url)] == ['{"n":1}', "2"]
        assert len(told) == 1

    def test_the_setting_says_how_many_days(self, database_url, open_connection):
        connection = open_connection()
        connection.execute("update outbox.settings set value = 1 where name = 'idempotency_days'")
        sql_record(connection)
        connection.commit()
        self.days_pass(connection, 2)
        sql_record(connection, data="2")
        connection.commit()
        connection.execute("update outbox.settings set value = 7 where name = 'idempotency_days'")
        connection.commit()
        assert len(recorded(database_url)) == 2
        with pytest.raises(psycopg.errors.CheckViolation, match="setting_is_known"):
            connection.execute("update outbox.settings set value = 0 where name = 'idempotency_days'")

    def test_a_claim_sees_what_was_committed_days_ago_while_it_was_open(self, database_url, open_connection):
        first, second = open_connection(), open_connection()
        sql_record(second)
        sql_record(first)
        first.commit()
        self.days_pass(first, 3)
        second.commit()
        assert len(recorded(database_url)) == 1
        assert self.days_pass(first, 0) == 2, "the window is counted from the first"

    def test_what_is_older_is_forgotten_by_leaves(self, database_url, open_connection):
        connection = open_connection(autocommit=True)
        leaves = "select count(*) from pg_inherits where inhparent = 'outbox.idempotency_keys'::regclass"
        before = connection.execute(leaves).fetchone()
        made = connection.execute("select outbox.make_key_leaf(0, current_date - 20)").fetchone()[0]
        assert made is not None
        sql_record(connection)
        self.days_pass(connection, 20)
        rows = "insert into outbox.idempotency_keys select event_id, day - 50, 1, content from outbox.idempotency_keys"
        connection.execute(rows)  # into the default leaf
        while connection.execute("select outbox.make_key_leaf(0, current_date - 20)").fetchone()[0]:
            pass
        while connection.execute("select outbox.forget_keys(1)").fetchone()[0]:
            pass
        assert connection.execute("select count(*) from outbox.idempotency_keys").fetchone() == (0,)
        assert connection.execute(leaves).fetchone() == before

    def test_nothing_within_the_window_is_forgotten(self, open_connection):
        connection = open_connection(autocommit=True)
        sql_record(connection)
        self.days_pass(connection, 6)
        while connection.execute("select outbox.forget_keys(1)").fetchone()[0]:
            pass
        assert connection.execute("select count(*) from outbox.idempotency_keys").fetchone() == (2,)


class TestCost:
    def test_who_uses_no_key_sends_the_statement_of_before_and_nothing_else(self, engine):
        with Session(engine) as session:
            statements = Statements(engine)
            record(session, "a", 1)
            session.commit()
        (statement,) = statements
        assert "idempotency" not in statement
        assert "trace" not in statement
        assert "priority" not in statement

    def test_many_keys_are_one_statement(self, engine, database_url):
        with Session(engine) as session:
            for number in range(50):
                record(session, "a", number, idempotency_key=str(number))
            statements = Statements(engine)
            session.commit()
        assert len(statements) == 1
        assert len(recorded(database_url)) == 50


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "is empty"),
        ("k" * 257, "is 257 bytes, at most 256"),
        (7, "must be a str, not int"),
        ("a\0b", "NUL"),
        ("\ud800", "lone surrogate"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_before_any_sql(engine, key, said):
    with engine.begin() as connection:
        statements = Statements(engine)
        with pytest.raises(RecordError, match=f"^idempotency_key: .*{said}"):
            record(connection, "a", 1, idempotency_key=key)
        assert statements == []


def test_sql_refuses_such_a_key_too(open_connection):
    for key in ("", "k" * 257):
        with open_connection() as connection, pytest.raises(psycopg.errors.CheckViolation, match="1 to 256 bytes"):
            sql_record(connection, key=key)


def test_outbox_app_records_with_keys_and_touches_no_table(database_url, open_connection):
    connection = open_connection()
    connection.execute("set role outbox_app")
    told = {sql_record(connection), record(connection, "a", {"n": 1}, idempotency_key="k").id}
    connection.commit()
    connection.execute("set role outbox_app")
    told.add(sql_record(connection))
    for table in TABLES:
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(f"select from {table}")
    connection.commit()
    assert told == {row.id for row in recorded(database_url)}


def test_a_key_named_by_a_plain_insert_claims_nothing(database_url, open_connection):
    """An id is the inserter's own business, as ever; no unique index holds it."""
    connection = open_connection()
    event_id = parse_id("evt", sql_record(connection))
    connection.execute("insert into outbox.events (id, type, payload) values (%s, 'b', '{}')", (event_id,))
    connection.commit()
    assert [row.type for row in recorded(database_url)] == ["a", "b"]


def test_the_engine_of_a_bind_for_each_class_is_asked(database_url):
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    with Session(binds={Order: engine, outbox.events_table: engine}) as session:
        record(session, "a", 1, idempotency_key="k")
        session.commit()
    with Session(binds={Order: engine, outbox.events_table: engine}) as session:
        record(session, "a", 1, idempotency_key="k")
        session.commit()
        assert session.execute(text("select 1"), bind_arguments={"bind": engine}).scalar() == 1
    engine.dispose()
    assert len(recorded(database_url)) == 1


def test_a_commit_that_other_content_stops_keeps_nothing(database_url, engine):
    """The driver's error of COMMIT itself, as SQLAlchemy raises it."""
    with Session(engine) as one, Session(engine) as other:
        other.add(Order(number=5))
        record(one, "a", 1, idempotency_key="k")
        record(other, "a", 2, idempotency_key="k")
        one.flush()
        other.flush()

        @outbox.recording.session.event.listens_for(other, "before_commit")
        def meanwhile(_session):  # after ours, which has asked already
            one.commit()

        with pytest.raises(IntegrityError, match="idempotency_key: of two transactions"):
            other.commit()
        other.rollback()
        assert other.query(Order).filter_by(number=5).count() == 0
    assert [row.payload for row in recorded(database_url)] == ["1"]
