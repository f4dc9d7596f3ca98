"""emit(): on the session in use, whoever asks; where none is in use it is an error, and never a lost event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import flask
import httpx
import psycopg
import pytest
from fastapi import Depends, FastAPI
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import outbox
from tests.support.recording import emptied, engine_of, recorded_types, shop_database


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url):
    return emptied(shared_url)


@pytest.fixture
def shop(database_url):
    engine = engine_of(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    yield
    outbox.sessions_from(None)


class TestABlock:
    def test_of_a_session(self, shop, database_url):
        with Session(shop) as session, outbox.use_session(session) as used:
            assert used is session is outbox.current_session()
            event = outbox.emit("order.placed", {"id": 1}, key="1", priority=2)
            session.commit()
        assert (event.type, event.key, event.recorded) == ("order.placed", "1", True)
        assert recorded_types(database_url) == ["order.placed"]

    def test_of_connections(self, shop, database_url):
        with shop.begin() as connection, outbox.use_session(connection):
            outbox.emit("a", 1)
        with psycopg.connect(database_url) as raw, outbox.use_session(raw):
            outbox.emit("b", 1)
        assert recorded_types(database_url) == ["a", "b"]

    def test_the_innermost_holds(self, shop):
        with Session(shop) as outer, Session(shop) as inner, outbox.use_session(outer):
            with outbox.use_session(inner):
                assert outbox.current_session() is inner
            assert outbox.current_session() is outer

    def test_of_an_async_session_in_tasks_of_their_own(self, shop, database_url):
        async def main() -> None:
            engine = create_async_engine(shop.url)

            async def place(number: int) -> None:
                async with AsyncSession(engine) as session:
                    with outbox.use_session(session):
                        await asyncio.sleep(0)
                        outbox.emit(f"order.n{number}", number)
                        await asyncio.to_thread(outbox.emit, f"order.n{number}", number)
                        await session.commit()

            await asyncio.gather(*map(place, range(5)))
            await engine.dispose()

        asyncio.run(main())
        assert sorted(recorded_types(database_url)) == sorted([f"order.n{n}" for n in range(5)] * 2)

    def test_a_task_that_outlives_it_is_told_so(self, shop):
        async def main() -> None:
            go = asyncio.Event()

            async def late() -> None:
                await go.wait()
                outbox.emit("order.placed", {})

            with Session(shop) as session, outbox.use_session(session):
                task = asyncio.create_task(late())
                await asyncio.sleep(0)
            go.set()
            with pytest.raises(outbox.TransactionError, match="has ended"):
                await task

        asyncio.run(main())

    def test_what_no_event_can_be_recorded_on_is_named(self, shop):
        with outbox.use_session(shop), pytest.raises(outbox.TargetError, match="Engine"):
            outbox.emit("a", 1)


class TestNone:
    def test_it_is_one_clear_error(self):
        with pytest.raises(outbox.TransactionError, match=r"no session is in use here.*use_session"):
            outbox.emit("a", 1)
        with pytest.raises(outbox.TransactionError, match="no session is in use here"):
            outbox.current_session()

    def test_it_is_logged_where_errors_are(self, caplog):
        before = sum(outbox.refused_events().values())
        event = outbox.emit("a.b", 1, key="k", on_error="log")
        assert (event.recorded, event.key) == (False, "k")
        assert sum(outbox.refused_events().values()) == before + 1
        assert event.id in caplog.text
        assert "no session is in use here" in caplog.text


class TestARegisteredSource:
    def test_a_scoped_session(self, shop, database_url):
        scoped = scoped_session(sessionmaker(shop))
        outbox.sessions_from(scoped)
        outbox.emit("a", 1)
        scoped.commit()
        with Session(shop) as session, outbox.use_session(session):
            outbox.emit("of the block".replace(" ", "_"), 1)
            session.rollback()
        scoped.remove()
        assert recorded_types(database_url) == ["a"]

    def test_flask_sqlalchemy(self, shop, database_url):
        app = flask.Flask("shop")
        app.config["SQLALCHEMY_DATABASE_URI"] = shop.url.render_as_string(hide_password=False)
        db = SQLAlchemy(app)
        outbox.sessions_from(db.session)
        with app.app_context():
            outbox.emit("a", 1)
            db.session.commit()
            db.engine.dispose()
        with pytest.raises(outbox.TransactionError, match="no session is in use here") as refused:
            outbox.emit("b", 1)
        assert "application context" in str(refused.value.__cause__)
        assert recorded_types(database_url) == ["a"]

    def test_a_callable(self, shop):
        with Session(shop) as session:
            found: list[Any] = [session]
            outbox.sessions_from(lambda: found[0])
            assert outbox.current_session() is session
            found[0] = None
            with pytest.raises(outbox.TransactionError, match="no session is in use here"):
                outbox.current_session()

    @pytest.mark.parametrize("wrong", [5, "session", Session, sessionmaker()])
    def test_what_would_make_a_session_that_nobody_commits_is_refused(self, wrong):
        with pytest.raises(outbox.ArgumentError, match="source"):
            outbox.sessions_from(wrong)


def notify(number: int) -> None:
    """What is called deep inside, with no session at hand."""
    outbox.emit("match.found", {"id": number})


def shop_app(engine) -> FastAPI:
    """Endpoints and dependencies of every kind; each endpoint emits, and its dependency commits."""
    app = FastAPI()

    @contextmanager
    def committed() -> Iterator[Session]:
        with Session(engine) as session:
            yield session
            session.commit()

    def opened_in_a_thread() -> Iterator[Session]:
        with committed() as session, outbox.use_session(session):
            yield session

    def only_a_session() -> Iterator[Session]:
        with committed() as session:
            yield session

    needed = Depends(only_a_session)

    async def opened_in_the_task(session: Session = needed) -> AsyncIterator[Session]:
        with outbox.use_session(session):
            yield session

    for name, dependency in (("def", opened_in_a_thread), ("async", opened_in_the_task)):

        @app.get(f"/{name}/def/{{number}}", dependencies=[Depends(dependency)])
        def plain(number: int) -> None:
            notify(number)

        @app.get(f"/{name}/async/{{number}}", dependencies=[Depends(dependency)])
        async def asynchronous(number: int) -> None:
            notify(number)

    return app


def answers(app: FastAPI, *paths: str) -> list[int]:
    """The status of each answer; what an endpoint raises is raised here."""

    async def ask() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            return [response.status_code for response in await asyncio.gather(*map(client.get, paths))]

    return asyncio.run(ask())


class TestFastAPI:
    @pytest.mark.parametrize("endpoint", ["def", "async"])
    def test_an_async_dependency_is_seen_by_every_endpoint(self, shop, database_url, endpoint):
        assert answers(shop_app(shop), f"/async/{endpoint}/1", f"/async/{endpoint}/2") == [200, 200]
        assert recorded_types(database_url) == ["match.found"] * 2

    @pytest.mark.parametrize("endpoint", ["def", "async"])
    def test_what_a_plain_dependency_opened_is_missed_by_name_and_no_event_is_lost(self, shop, database_url, endpoint):
        with pytest.raises(outbox.TransactionError, match="open it in an `async def` dependency"):
            answers(shop_app(shop), f"/def/{endpoint}/1")
        assert recorded_types(database_url) == []
