"""An event on a session that nobody commits or rolls back is told of; whoever ends it on purpose hears nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import warnings
from contextlib import nullcontext

import pytest
import transaction
import zope.sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import record
from tests.support.recording import Order, emptied, engine_of, shop_database

TOLD = r"events are lost: a session was {} while it held (order\.placed evt_\w+|1 in all)"


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def shop(shared_url):
    engine = engine_of(emptied(shared_url))
    yield engine
    engine.dispose()


def forgotten(engine) -> None:
    session = Session(engine)
    session.add(Order())
    session.flush()
    record(session, "order.placed", {})


@pytest.mark.field("F50")
class TestTold:
    @pytest.mark.parametrize("end", ["close", "reset", "invalidate"])
    def test_when_the_session_is_closed(self, shop, end, caplog):
        session = Session(shop)
        record(session, "order.placed", {})
        with pytest.warns(ResourceWarning, match=TOLD.format("closed")):
            getattr(session, end)()
        assert caplog.messages[0].startswith("events are lost")
        assert caplog.records[0].name == "outbox"
        assert caplog.records[0].levelno == logging.WARNING

    def test_when_it_was_written_in_a_savepoint_meanwhile(self, shop):
        session = Session(shop)
        with session.begin_nested():
            record(session, "order.placed", {})
        with pytest.warns(ResourceWarning, match=TOLD.format("closed")):
            session.close()

    def test_when_only_a_savepoint_was_rolled_back(self, shop):
        session = Session(shop)
        record(session, "order.placed", {})
        session.begin_nested().rollback()
        with pytest.warns(ResourceWarning, match=TOLD.format("closed")):
            session.close()

    def test_when_the_session_is_collected(self, shop, caplog):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # raised inside of the collector, it would be no error
            forgotten(shop)
            gc.collect()
        assert [line for line in caplog.messages if "was forgotten while it held order.placed evt_" in line] != []

    def test_on_an_async_session(self, shop):
        async def main() -> None:
            engine = create_async_engine(shop.url)
            async with AsyncSession(engine) as session:
                record(session, "order.placed", {})
            await engine.dispose()

        with pytest.warns(ResourceWarning, match=TOLD.format("closed")):
            asyncio.run(main())

    def test_when_the_program_ends(self, shop):
        """The script that forgot to commit."""
        url = shop.url.render_as_string(hide_password=False)
        program = (
            "import outbox, sqlalchemy as sa, sqlalchemy.orm as orm\n"
            f"session = orm.Session(sa.create_engine({url!r}))\n"
            "outbox.record(session, 'order.placed', {})\n"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "events are lost: a session was forgotten while it held order.placed evt_" in ended.stderr


class TestNotTold:
    """Warnings are errors in this suite."""

    def test_of_what_was_committed_or_rolled_back(self, shop, caplog):
        with Session(shop) as session:
            record(session, "order.placed", {})
            session.commit()
            record(session, "order.placed", {})
            session.rollback()
            with session.begin_nested() as savepoint:
                record(session, "order.placed", {})
                savepoint.rollback()
        gc.collect()
        assert caplog.messages == []

    @pytest.mark.parametrize("begins", [False, True])
    def test_of_what_an_exception_ended(self, shop, caplog, begins):
        def fail() -> None:
            with Session(shop) as session, session.begin() if begins else nullcontext():
                record(session, "order.placed", {})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert caplog.messages == []

    def test_of_a_commit_that_failed_with_an_error(self, shop, caplog):
        with Session(shop) as session:
            session.add_all([Order(number=1), Order(number=1)])
            record(session, "order.placed", {})
            with pytest.raises(Exception, match="unique"):
                session.commit()
        assert caplog.messages == []

    def test_of_what_the_connections_owner_rolls_back(self, shop, caplog):
        with shop.connect() as connection:
            connection.begin()
            with Session(connection, join_transaction_mode="rollback_only") as session:
                session.connection()
                record(session, "order.placed", {})
        gc.collect()
        assert caplog.messages == []


@pytest.mark.field("F73")
class TestZope:
    """zope.sqlalchemy commits only sessions that it saw change, and an event alone is no change that it sees."""

    def test_an_event_alone_is_told_of(self, shop):
        session = Session(shop)
        zope.sqlalchemy.register(session)
        session.connection()
        record(session, "order.placed", {})
        with pytest.warns(ResourceWarning, match=TOLD.format("closed")):
            transaction.commit()

    def test_one_that_is_marked_is_recorded(self, shop):
        session = Session(shop)
        zope.sqlalchemy.register(session)
        record(session, "order.placed", {})
        zope.sqlalchemy.mark_changed(session)
        transaction.commit()
        with shop.connect() as connection:
            assert connection.exec_driver_sql("select type from outbox.events").scalars().all() == ["order.placed"]


@pytest.mark.field("F46")
@pytest.mark.parametrize("kind", ["AsyncSession", "psycopg", "Engine", "None"])
def test_what_other_verbs_take_is_named(shop, kind):
    import psycopg

    given = {
        "AsyncSession": AsyncSession(create_async_engine(shop.url)),
        "psycopg": psycopg.connect(shop.url.set(drivername="postgresql").render_as_string(hide_password=False)),
        "Engine": shop,
        "None": None,
    }
    mend = "await session.run_sync" if kind == "AsyncSession" else r"with engine\.begin\(\) as connection"
    for verb in (
        lambda target: outbox.subscribe(target, "https://example.com/", ["*"]),
        lambda target: outbox.subscriptions.list(target),
        lambda target: outbox.act_as(target, "alice"),
        lambda target: outbox.events.list(target),
    ):
        with pytest.raises(
            outbox.TargetError, match=f"pass a SQLAlchemy Session or Connection, or Django's, not a .*{mend}"
        ):
            verb(given[kind])
    given["psycopg"].close()
