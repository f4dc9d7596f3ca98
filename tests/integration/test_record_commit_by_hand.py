"""record() on a session whose connection somebody else commits: refused before any row is durable without its event."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from outbox import TransactionError, record
from tests.support.recording import Order, emptied, engine_of, recorded_types, shop_database


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url):
    return emptied(shared_url)


@pytest.fixture(params=["psycopg", "psycopg2"])
def shop(request, database_url):
    engine = engine_of(database_url, request.param, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.fixture
def orders(shop):
    """Return how many orders are committed; a connection given back in the middle of a transaction would add some."""

    def orders():
        with Session(shop) as session:
            session.add(Order())
            session.commit()
            return session.query(Order).count() - 1

    return orders


def sell(session, name):
    session.add(Order())
    session.flush()
    record(session, name, {"card": "4111"})


def test_the_sessions_connection_does_not_commit_while_events_wait(shop, database_url, orders):
    with Session(shop) as session:
        sell(session, "order.created")
        with pytest.raises(TransactionError, match=r"order\.created evt_\w{26}\): commit the session") as caught:
            session.connection().commit()
    assert "4111" not in str(caught.value)
    assert orders() == 0
    assert recorded_types(database_url) == []


def test_events_recorded_before_the_connection_began_are_guarded_too(shop, orders):
    with Session(shop) as session:
        record(session, "first", 1)
        session.add(Order())
        session.flush()
        with pytest.raises(TransactionError, match="first"):
            session.connection().get_transaction().commit()
    assert orders() == 0


def test_a_refused_session_is_used_again_after_a_rollback(shop, database_url):
    with Session(shop) as session:
        sell(session, "refused")
        with pytest.raises(TransactionError):
            session.connection().commit()
        session.rollback()
        sell(session, "a")
        session.commit()
        session.connection().commit()
    assert recorded_types(database_url) == ["a"]


@pytest.mark.parametrize("count", [1, 5, 7])
def test_a_few_events_are_named(shop, count):
    with Session(shop) as session:
        for number in range(count):
            sell(session, f"n{number}")
        with pytest.raises(TransactionError) as caught:
            session.connection().commit()
    assert str(caught.value).count("evt_") == min(count, 5)
    assert ("and 2 more" in str(caught.value)) == (count == 7)


def test_a_dropped_event_does_not_keep_the_connection_from_committing(shop, orders):
    with Session(shop) as session:
        session.add(Order())
        savepoint = session.begin_nested()
        record(session, "dropped", 1)
        savepoint.rollback()
        session.connection().commit()
    assert orders() == 1


def test_a_connection_joined_by_a_session_does_not_commit_before_it(shop, database_url, orders):
    with shop.connect() as connection:
        with Session(connection) as session:
            sell(session, "lost")
            with pytest.raises(TransactionError, match="lost"):
                connection.commit()
        connection.rollback()
        with Session(connection) as session:
            sell(session, "kept")
            session.commit()
            connection.commit()
    assert recorded_types(database_url) == ["kept"]
    assert orders() == 1


def test_a_session_closed_without_commit_leaves_its_rows_to_the_connection_so_that_is_refused(shop, orders):
    def program():
        with shop.begin() as connection, Session(connection) as session:
            sell(session, "lost")

    with pytest.raises(TransactionError, match="lost"):
        program()
    assert orders() == 0


@pytest.mark.parametrize("mode", ["rollback_only", "control_fully", "create_savepoint"])
def test_a_connection_is_free_when_a_session_on_it_has_ended(shop, database_url, orders, mode):
    with shop.connect() as connection:
        for end in ("commit", "rollback", "commit"):
            transaction = connection.begin()
            session = Session(connection, join_transaction_mode=mode)
            sell(session, end)
            getattr(session, end)()
            session.close()
            if transaction.is_active:
                connection.commit()
            connection.rollback()
        connection.begin()
        assert not connection.dispatch.commit
        connection.commit()
    assert recorded_types(database_url) == ["commit", "commit"]
    assert orders() == 2


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
def test_a_savepoint_closed_with_its_session_takes_the_events_along(shop, database_url, orders):
    with shop.begin() as connection, Session(connection, join_transaction_mode="create_savepoint") as session:
        sell(session, "dropped")
    assert recorded_types(database_url) == []
    assert orders() == 0


def test_what_a_closed_session_left_is_forgotten_with_the_rollback(shop, orders):
    with shop.connect() as connection:
        with connection.begin() as transaction:
            with Session(connection) as session:
                sell(session, "dropped")
            transaction.rollback()
        connection.execute(Order.__table__.insert())
        connection.commit()
    assert orders() == 1


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_async_sessions_connection(database_url, driver):
    async def program():
        engine = create_async_engine(make_url(database_url).set(drivername=f"postgresql+{driver}"), pool_size=1)
        async with AsyncSession(engine) as session:
            session.add(Order())
            await session.flush()
            record(session, "refused", 1)
            with pytest.raises(TransactionError, match="refused"):
                await (await session.connection()).commit()
        async with AsyncSession(engine) as session:
            record(session, "a", 1)
            await session.commit()
            orders = await session.run_sync(lambda session: session.query(Order).count())
        await engine.dispose()
        return orders

    engine_of(database_url).dispose()
    assert asyncio.run(program()) == 0
    assert recorded_types(database_url) == ["a"]
