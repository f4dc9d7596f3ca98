"""A route that receives webhooks into the inbox: the raw body, the session, the answer."""

from collections.abc import Callable
from typing import Any, Unpack

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

import outbox.inbox

__all__ = ["inbox_router"]


def inbox_router(
    *,
    session: Callable[..., Any],
    secrets: Any,
    source: str,
    handle: Callable[[Any, outbox.inbox.Received], Any],
    path: str = "",
    max_bytes: int = outbox.inbox.MAX_BYTES,
    **rules: Unpack[outbox.inbox.Rules],
) -> APIRouter:
    """Return a router whose one route, POST `path`, takes each webhook once; see docs/inbox.md for its answers.

    Args:
        session: your dependency that gives a session of this request's own: it is committed here, or rolled back.
        secrets: one secret of the sender's, or several.
        source: who sends, one word.
        handle: `handle(session, message)`, which acts upon a message that is new; for an AsyncSession an `async def`.
        path: of the route, below the router's prefix.
        max_bytes: of a body; a longer one is answered 413.
        rules: scheme, tolerance_seconds, id, … as for `outbox.inbox.process`.
    """
    router = APIRouter()

    @router.post(path, name=f"receive_{source}")
    async def receive(request: Request, given: Any = Depends(session)) -> Response:  # noqa: B008 - FastAPI's way
        """Receive a webhook."""
        body = await outbox.inbox.read(request, max_bytes=max_bytes)
        if hasattr(given, "run_sync"):
            answer = await outbox.inbox.aprocess(
                given, body, secrets, lambda message: handle(given, message), source=source, **rules
            )
        else:
            answer = await run_in_threadpool(
                outbox.inbox.process, given, body, secrets, lambda message: handle(given, message), source=source,
                **rules,
            )  # fmt: skip
        return Response(status_code=answer.status)

    return router
