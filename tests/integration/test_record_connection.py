"""record() on connections: the event is written at once, in the transaction that is open."""

from __future__ import annotations

import time
import traceback
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy
from psycopg import pq
from psycopg.rows import dict_row, scalar_row
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

import outbox
from outbox import RecordError, SchemaError, TargetError, TransactionError, record
from tests.support.recording import Statements, emptied, engine_of, recorded, recorded_types, shop_database

SECRET = {"card": "4111-1111"}


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


def printed(error):
    """All that a log would show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.fixture
def raw(database_url):
    with psycopg.connect(database_url) as connection:
        yield connection


def test_a_connection_writes_at_once_and_commits_when_its_owner_does(shop, database_url):
    with shop.connect() as connection:
        told = record(connection, "a", {"n": 1}, key="k", tenant="t")
        assert connection.scalar(text("select count(*) from outbox.events")) == 1
        assert recorded(database_url) == []
        connection.commit()
        record(connection, "never", 1)
        connection.rollback()
    assert recorded(database_url) == [(told.id, "a", "k", "t", '{"n":1}')]


def test_a_begin_block_and_its_savepoints(shop, database_url):
    with shop.begin() as connection:
        record(connection, "root", 1)
        with connection.begin_nested():
            record(connection, "kept", 1)
        savepoint = connection.begin_nested()
        record(connection, "dropped", 1)
        savepoint.rollback()
    assert recorded_types(database_url) == ["root", "kept"]


def test_a_transaction_that_is_over_is_refused(shop, database_url):
    with shop.connect() as connection, connection.begin() as transaction:
        transaction.rollback()
        with pytest.raises(TransactionError):
            record(connection, "a", 1)
    with pytest.raises(TransactionError, match="closed"):
        record(connection, "a", 1)
    assert recorded(database_url) == []


def test_a_failed_transaction_is_refused_without_sql(shop):
    statements = Statements(shop)
    with shop.connect() as connection:
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            connection.execute(text("select 1 / 0"))
        with pytest.raises(TransactionError, match="failed"):
            record(connection, "a", 1)
    assert not statements.of_events


def test_a_prepared_transaction_is_refused(shop):
    with shop.connect() as connection:
        if connection.exec_driver_sql("show max_prepared_transactions").scalar() == "0":
            pytest.skip("the server has max_prepared_transactions = 0")
        connection.rollback()
        transaction = connection.begin_twophase()
        record(connection, "a", 1)
        transaction.prepare()
        with pytest.raises(TransactionError):
            record(connection, "b", 1)
        transaction.rollback()


@pytest.mark.case("A27")
def test_autocommit_is_refused(shop, database_url):
    with (
        shop.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(TransactionError, match="autocommit"),
    ):
        record(connection, "a", 1)
    assert recorded(database_url) == []


@pytest.mark.case("A29")
def test_a_read_only_connection_is_refused_and_stays_usable(shop):
    with shop.connect().execution_options(postgresql_readonly=True) as connection:
        connection.execute(text("select 1"))
        with pytest.raises(TransactionError, match="read-only"):
            record(connection, "a", 1)
        assert connection.scalar(text("select 2")) == 2


def test_another_database_is_refused():
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.NullPool)  # which leaves no connection open
    with engine.connect() as connection, pytest.raises(RecordError, match="sqlite"):
        record(connection, "a", 1)


def test_a_missing_schema_is_named(empty_database_url):
    engine = engine_of(empty_database_url)
    with engine.connect() as connection, pytest.raises(SchemaError, match="relay migrate"):
        record(connection, "a", 1)
    engine.dispose()


def test_an_error_that_is_not_ours_passes_untouched(engine):
    with engine.connect() as connection:
        connection.execute(text("alter table outbox.events add check (type <> 'unwanted') not valid"))
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            record(connection, "unwanted", 1)


@pytest.mark.parametrize("types", [["unwanted"], ["a", "unwanted", "b"]])
def test_an_error_never_shows_the_payload(shop, types):
    with Session(shop) as session:
        session.execute(text("alter table outbox.events add check (type <> 'unwanted') not valid"))
        for name in types:
            record(session, name, SECRET)
        with pytest.raises(sqlalchemy.exc.IntegrityError, match="violates check") as caught:
            session.commit()
    assert "4111" not in printed(caught.value)


def test_a_raw_connections_error_never_shows_the_payload(raw):
    raw.execute("alter table outbox.events add check (type <> 'unwanted') not valid")
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        record(raw, "unwanted", SECRET)
    assert "4111" not in printed(caught.value)
    raw.rollback()


def test_an_encoding_that_lacks_a_character_is_named(database_url):
    with psycopg.connect(database_url, client_encoding="latin1") as connection:
        with pytest.raises(RecordError, match="use UTF8") as caught:
            record(connection, "a", {**SECRET, "price": "\u20ac"})
        assert "4111" not in printed(caught.value)
        connection.rollback()


def test_available_at_is_an_instant_or_counts_on_the_databases_clock(shop, database_url):
    instant = datetime(2031, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    with shop.begin() as connection:
        connection.execute(text("set local timezone = 'America/New_York'"))
        record(connection, "instant", 1, available_at=instant)
        record(connection, "delay", 1, available_at=timedelta(days=400, microseconds=1))
        record(connection, "now", 1)
        query = "select available_at, extract(epoch from available_at - recorded_at) from outbox.events order by seq"
        (exact, _), (_, seconds), (none, _) = connection.execute(text(query)).all()
    assert exact == instant
    assert abs(float(seconds) - 400 * 86400) < 5
    assert none is None


def test_a_raw_psycopg_connection(raw, database_url):
    told = record(raw, "a", {"n": 1}, key="k", tenant="t", available_at=timedelta(hours=1))
    raw.commit()
    record(raw, "never", 1)
    raw.rollback()
    assert recorded(database_url) == [(told.id, "a", "k", "t", '{"n":1}')]


def test_raw_transaction_blocks(raw, database_url):
    with raw.transaction():
        record(raw, "root", 1)
        with raw.transaction():
            record(raw, "kept", 1)
        with raw.transaction(force_rollback=True):
            record(raw, "dropped", 1)
    assert recorded_types(database_url) == ["root", "kept"]


@pytest.mark.parametrize("cursor", [psycopg.Cursor, psycopg.RawCursor, psycopg.ClientCursor])
@pytest.mark.parametrize("row_factory", [dict_row, scalar_row, lambda cursor: cursor.description[99]])
def test_a_raw_connections_factories_are_its_owners(database_url, cursor, row_factory):
    with psycopg.connect(database_url, cursor_factory=cursor, row_factory=row_factory) as connection:
        record(connection, "a", {"quoted": "it's %s \\ 100% $1"}, key="k", available_at=timedelta(hours=1))
    assert recorded(database_url)[0].payload == '{"quoted":"it\'s %s \\\\ 100% $1"}'


@pytest.mark.parametrize("autocommit", [True, False])
def test_pipeline_mode(database_url, autocommit):
    with psycopg.connect(database_url, autocommit=autocommit) as connection, connection.pipeline():
        with connection.transaction():
            record(connection, "a", 1)
            record(connection, "b", 1)
        if autocommit:
            with pytest.raises(TransactionError, match="autocommit"):
                record(connection, "never", 1)
    assert recorded_types(database_url) == ["a", "b"]


def test_pipeline_mode_names_what_failed(empty_database_url):
    with psycopg.connect(empty_database_url) as connection, connection.pipeline():
        with pytest.raises(SchemaError, match="relay migrate"):
            record(connection, "a", 1)
        connection.rollback()


def test_what_failed_before_in_a_pipeline_is_not_taken_for_ours(raw):
    with raw.pipeline():
        raw.execute("table nowhere")
        with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
            record(raw, "a", 1)
        raw.rollback()


@pytest.mark.case("A27")
def test_raw_autocommit_needs_a_transaction_block(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        with pytest.raises(TransactionError, match="autocommit"):
            record(connection, "a", 1)
        with connection.transaction():
            record(connection, "b", 1)
    assert recorded_types(database_url) == ["b"]


def test_raw_failed_closed_and_read_only(raw, database_url):
    with pytest.raises(psycopg.DataError):
        raw.execute("select 1 / 0")
    with pytest.raises(TransactionError, match="failed"):
        record(raw, "a", 1)
    raw.rollback()
    raw.read_only = True
    with pytest.raises(TransactionError, match="read-only"):
        record(raw, "a", 1)
    assert raw.info.transaction_status is pq.TransactionStatus.IDLE
    raw.close()
    with pytest.raises(TransactionError, match="closed"):
        record(raw, "a", 1)
    assert recorded(database_url) == []


def test_a_raw_connection_to_a_database_without_the_schema(empty_database_url):
    with psycopg.connect(empty_database_url) as connection:
        with pytest.raises(SchemaError, match="relay migrate"):
            record(connection, "a", 1)
        connection.rollback()


@pytest.mark.case("A34")
def test_anything_else_is_a_type_error_that_says_what_is_accepted(engine):
    for target, mend in {
        engine: "session or connection made from it",
        sessionmaker(engine): "session or connection made from it",
        None: "Session",
        "postgresql://": "psycopg Connection",
        outbox: "AsyncSession",
    }.items():
        with pytest.raises(TypeError, match=mend) as error:
            record(target, "a", 1)
        assert isinstance(error.value, TargetError)


@pytest.mark.case("A36")
def test_an_event_is_recorded_at_the_databases_time(shop, database_url, monkeypatch):
    """A caller whose clock is a day ahead."""
    ahead = time.time_ns() + 86_400 * 10**9
    monkeypatch.setattr("outbox.ids.time.time_ns", lambda: ahead)
    with shop.begin() as connection:
        record(connection, "a", 1)
        query = "select abs(extract(epoch from recorded_at - clock_timestamp())) < 60 from outbox.events"
        assert connection.scalar(text(query))
