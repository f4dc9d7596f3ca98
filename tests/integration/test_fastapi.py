"""An application on FastAPI: the session that emit() records on, the schema at the start, and the inbox as a route."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
import outbox.inbox
from outbox.fastapi import inbox_router, lifespan, session_in_use
from outbox.signing.verify import new_secret

pytestmark = pytest.mark.anyio
SECRET = new_secret()


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")


@pytest.fixture(params=["Session", "AsyncSession"])
def get_session(engine: sqlalchemy.Engine, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A dependency as applications have it: a plain `def` that gives a Session, or an `async def` with the other."""

    def plain() -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    async def asynchronous() -> AsyncIterator[AsyncSession]:
        own = create_async_engine(engine.url)
        async with AsyncSession(own) as session:
            yield session
        await own.dispose()

    return {"Session": plain, "AsyncSession": asynchronous}[request.param]


async def commit(session: Any) -> None:
    """Commit a session of either kind."""
    if isinstance(session, AsyncSession):
        await session.commit()
    else:
        session.commit()


def recorded(engine: sqlalchemy.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("select type from outbox.events order by seq")).scalars())


async def test_emit_finds_the_requests_session(engine: sqlalchemy.Engine, get_session: Callable[..., Any]) -> None:
    """In plain endpoints, which FastAPI runs in a thread, and in those that await."""
    app, given = FastAPI(), Depends(session_in_use(get_session))

    @app.post("/plain")
    def plain(session: Any = given) -> bool:
        outbox.emit("plain", {})
        return outbox.current_session() is session

    @app.post("/awaited")
    async def awaited(session: Any = given) -> bool:
        outbox.emit("awaited", {})
        await commit(session)
        return outbox.current_session() is session

    async with client_of(app) as client:
        assert (await client.post("/awaited")).json() is True
        with pytest.warns(ResourceWarning, match="events are lost"):
            assert (await client.post("/plain")).json() is True
    assert recorded(engine) == ["awaited"]
    with pytest.raises(outbox.TransactionError):
        outbox.current_session()


async def test_an_application_does_not_start_without_the_schema(database_url: str, empty_database_url: str) -> None:
    for url, starts in ((database_url, True), (empty_database_url, False)):
        address = url.replace("postgresql://", "postgresql+psycopg://")
        plain, asynchronous = create_engine(address), create_async_engine(address)
        for engine in (plain, asynchronous):
            if starts:
                async with lifespan(engine)(FastAPI()):
                    pass
                continue
            with pytest.raises(outbox.SchemaError, match="relay migrate"):
                await lifespan(engine)(FastAPI()).__aenter__()
        plain.dispose()
        await asynchronous.dispose()


async def test_a_webhook_is_taken_once_and_a_forged_one_never(
    engine: sqlalchemy.Engine, get_session: Callable[..., Any]
) -> None:
    def act(session: Session, message: outbox.inbox.Received) -> None:
        outbox.record(session, "seen", message.json())

    async def act_awaiting(session: AsyncSession, message: outbox.inbox.Received) -> None:
        await session.run_sync(act, message)

    app, awaits = FastAPI(), get_session.__name__ == "asynchronous"
    router = inbox_router(
        session=get_session, secrets=SECRET, source="shop", handle=act_awaiting if awaits else act, max_bytes=100
    )
    app.include_router(router, prefix="/hooks/shop")
    body = b'{"type":"a","timestamp":"2026-01-01T00:00:00Z","data":1}'
    signed = outbox.signed_headers(SECRET, "msg_1", body)
    async with client_of(app) as client:
        for content, status in ((body, 200), (body, 200), (body + b" ", 401), (body * 2, 413)):
            answer = await client.post("/hooks/shop", content=content, headers=signed)
            assert answer.status_code == status
    assert recorded(engine) == ["seen"]
