"""record() in asynchronous applications: AsyncSession, AsyncConnection, and the raw connections of arecord()."""

from __future__ import annotations

import asyncio
import traceback
from datetime import timedelta

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import TargetError, TransactionError, arecord, record
from tests.support.recording import Order, Statements, emptied, engine_of, recorded, recorded_types, shop_database

SECRET = {"card": "4111-1111"}


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url):
    return emptied(shared_url)


@pytest.fixture(params=["psycopg", "asyncpg"])
def run(request, database_url):
    """Run an async function with an AsyncEngine of one driver."""
    engine_of(database_url).dispose()

    def run(function):
        async def with_engine():
            url = make_url(database_url).set(drivername=f"postgresql+{request.param}")
            engine = create_async_engine(url)
            try:
                await function(engine)
            finally:
                await engine.dispose()

        asyncio.run(with_engine())

    return run


@pytest.mark.field("F47")
def test_every_target_takes_type_and_data_by_name(run, database_url):
    async def program(engine):
        async with AsyncSession(engine) as session:
            record(session, type="async.session", data=1)
            await session.commit()
        scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        record(scoped, data=1, type="async.scoped")
        await scoped.commit()
        await scoped.remove()
        async with engine.begin() as connection:
            await connection.run_sync(record, type="async.connection", data=1)
        raw = await asyncpg.connect(database_url)
        async with raw.transaction():
            await arecord(raw, type="asyncpg", data=1)
        await raw.close()
        async with await psycopg.AsyncConnection.connect(database_url) as raw:
            await arecord(raw, data=1, type="psycopg.async", key="k")

    run(program)
    plain = engine_of(database_url)
    with Session(plain) as session:
        record(session, type="session", data=1)
        session.commit()
    with plain.begin() as connection:
        record(connection, "connection", data=1)
    with psycopg.connect(database_url) as raw:
        outbox.Outbox().record(raw, type="psycopg", data=1)
    plain.dispose()
    assert set(recorded_types(database_url)) == {
        "async.session", "async.scoped", "async.connection", "asyncpg", "psycopg.async", "session", "connection",
        "psycopg",
    }  # fmt: skip


def test_record_is_plain_on_an_async_session(run, database_url):
    async def program(engine):
        statements = Statements(engine.sync_engine)
        async with AsyncSession(engine) as session:
            session.add(Order())
            await session.flush()
            told.append(record(session, "a", {"text": 'é"\\\n\x01'}, key="k", tenant="t"))
            record(session, "b", [1], available_at=timedelta(days=90))
            await session.commit()
            record(session, "never", 1)
            await session.rollback()
        assert len(statements.of_events) == 1

    told = []
    run(program)
    first, second = recorded(database_url)
    assert first == (told[0].id, "a", "k", "t", '{"text":"é\\"\\\\\\n\\u0001"}')
    assert second.type == "b"


def test_savepoints_of_an_async_session(run, database_url):
    async def program(engine):
        async with AsyncSession(engine) as session:
            record(session, "root", 1)
            async with session.begin_nested():
                record(session, "kept", 1)
            savepoint = await session.begin_nested()
            record(session, "dropped", 1)
            await savepoint.rollback()
            await session.commit()

    run(program)
    assert recorded_types(database_url) == ["root", "kept"]


def test_thousands_of_events_on_an_async_session(run, database_url):
    async def program(engine):
        statements = Statements(engine.sync_engine)
        async with AsyncSession(engine) as session:
            for name in types:
                record(session, name, {"type": name}, key=name)
            await session.commit()
        assert len(statements.of_events) == 1

    types = [f"n{number}" for number in range(3_000)]
    run(program)
    assert recorded_types(database_url) == types


def test_async_scoped_session(run, database_url):
    async def program(engine):
        scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        record(scoped, "a", 1)
        await scoped.commit()
        await scoped.remove()

    run(program)
    assert recorded_types(database_url) == ["a"]


def test_run_sync_carries_record_to_an_async_connection(run, database_url):
    async def program(engine):
        async with engine.connect() as connection:
            with pytest.raises(TargetError, match="run_sync"):
                record(connection, "refused", 1)
            await connection.run_sync(record, "a", {"n": 1}, key="k")
            await connection.commit()
            await connection.run_sync(record, "b", 1)
            await connection.rollback()

    run(program)
    assert recorded_types(database_url) == ["a"]


@pytest.mark.case("A27")
def test_autocommit_is_refused(run, database_url):
    async def program(engine):
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(TransactionError, match="autocommit"):
            record(AsyncSession(autocommit), "a", 1)
        async with autocommit.connect() as connection:
            with pytest.raises(TransactionError, match="autocommit"):
                await connection.run_sync(record, "a", 1)

    run(program)
    assert recorded(database_url) == []


@pytest.mark.case("A29")
def test_read_only_and_failed_transactions_are_named(run):
    async def program(engine):
        async with engine.connect() as connection:
            await connection.execute(text("set transaction read only"))
            with pytest.raises(TransactionError, match="read-only"):
                await connection.run_sync(record, "a", 1)
            with pytest.raises(TransactionError, match="failed"):
                await connection.run_sync(record, "a", 1)

    run(program)


def test_a_missing_schema_is_named(empty_database_url):
    async def program():
        connection = await asyncpg.connect(empty_database_url)
        transaction = connection.transaction()
        await transaction.start()
        with pytest.raises(outbox.SchemaError, match="relay migrate"):
            await arecord(connection, "a", 1)
        await transaction.rollback()
        await connection.close()

    asyncio.run(program())


def test_an_error_never_shows_the_payload(database_url):
    async def program():
        connection = await asyncpg.connect(database_url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("alter table outbox.events add check (type <> 'unwanted') not valid")
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await arecord(connection, "unwanted", SECRET)
        await transaction.rollback()
        await connection.close()
        return caught.value

    error = asyncio.run(program())
    assert "4111" not in "".join(traceback.format_exception(error)) + repr(error)


def test_an_async_sessions_error_never_shows_the_payload(run):
    async def program(engine):
        async with AsyncSession(engine) as session:
            await session.execute(text("alter table outbox.events add check (type <> 'unwanted') not valid"))
            record(session, "unwanted", SECRET)
            with pytest.raises(IntegrityError) as caught:
                await session.commit()
        assert "4111" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)

    run(program)


def test_arecord_on_raw_psycopg(database_url):
    async def program():
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            told.append(await arecord(connection, "a", {"n": 1}, key="k", tenant="t"))
            async with connection.transaction():
                await arecord(connection, "b", 1)
            async with connection.transaction(force_rollback=True):
                await arecord(connection, "never", 1)

    told = []
    asyncio.run(program())
    first, second = recorded(database_url)
    assert first == (told[0].id, "a", "k", "t", '{"n":1}')
    assert second.type == "b"


def test_arecord_in_a_pipeline_of_raw_cursors(database_url):
    async def program():
        connect = psycopg.AsyncConnection.connect
        async with (
            await connect(database_url, autocommit=True, cursor_factory=psycopg.AsyncRawCursor) as connection,
            connection.pipeline(),
            connection.transaction(),
        ):
            await arecord(connection, "a", "% $1")

    asyncio.run(program())
    assert recorded(database_url)[0].payload == '"% $1"'


def test_arecord_on_raw_asyncpg(database_url):
    async def program():
        async with (
            asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool,
            pool.acquire() as connection,
            connection.transaction(),
        ):
            told.append(await arecord(connection, "a", {"n": 1}, key="k", tenant="t"))
            savepoint = connection.transaction()
            await savepoint.start()
            await arecord(connection, "never", 1)
            await savepoint.rollback()
            await arecord(connection, "b", 1, available_at=timedelta(days=90))

    told = []
    asyncio.run(program())
    first, second = recorded(database_url)
    assert first == (told[0].id, "a", "k", "t", '{"n":1}')
    assert second.type == "b"


@pytest.mark.case("A27")
def test_arecord_needs_a_transaction(database_url):
    async def program():
        connection = await asyncpg.connect(database_url)
        with pytest.raises(TransactionError, match=r"connection\.transaction"):
            await arecord(connection, "a", 1)
        await connection.close()
        with pytest.raises(TransactionError, match="closed"):
            await arecord(connection, "a", 1)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            with pytest.raises(TransactionError, match="autocommit"):
                await arecord(connection, "a", 1)
            async with connection.transaction():
                await arecord(connection, "b", 1)

    asyncio.run(program())
    assert recorded_types(database_url) == ["b"]


@pytest.mark.case("A34")
def test_each_function_names_the_other_for_the_wrong_kind(database_url):
    async def program():
        raw = await asyncpg.connect(database_url)
        with pytest.raises(TargetError, match="await outbox"):
            record(raw, "a", 1)
        await raw.close()
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            with pytest.raises(TargetError, match="await outbox"):
                record(connection, "a", 1)
        with psycopg.connect(database_url) as plain, pytest.raises(TargetError, match=r"plain `outbox\.record"):
            await arecord(plain, "a", 1)
        with pytest.raises(TargetError, match=r"plain `outbox\.record"):
            await arecord(AsyncSession(), "a", 1)

    asyncio.run(program())
    assert recorded(database_url) == []
