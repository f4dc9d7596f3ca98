"""What an application on FastAPI begins with: a check of the schema, and the session that `emit()` records on."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import Depends
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Engine

import outbox
from outbox.schema import require_current

__all__ = ["lifespan", "session_in_use"]


def session_in_use(session: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    """Return the dependency that gives your session, and makes it the one that `outbox.emit()` records on.

    It is asynchronous, so that endpoints and what they call see it, plain ones too; what a plain dependency sets in a
    context variable they would not see. Depend on it in place of `session`, your dependency that gives a Session or an
    AsyncSession.
    """

    async def use(given: Any = Depends(session)) -> AsyncIterator[Any]:  # noqa: B008 - FastAPI's way
        with outbox.use_session(given):
            yield given

    return use


def lifespan(engine: Any) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a lifespan for `FastAPI(lifespan=…)`: the application does not start on a schema that it cannot use.

    `engine` is an Engine or an AsyncEngine. Starting raises SchemaError, which says to run `relay migrate`.
    """

    @asynccontextmanager
    async def checked(_application: Any) -> AsyncIterator[None]:
        if isinstance(engine, Engine):
            await run_in_threadpool(_check, engine)
        else:
            async with engine.connect() as connection:
                await connection.run_sync(require_current)
        yield

    return checked


def _check(engine: Engine) -> None:
    with engine.connect() as connection:
        require_current(connection)
