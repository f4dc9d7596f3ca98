"""A receiver that verifies webhooks and hands them on to be shown; nothing is printed here."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from outbox.errors import SignatureError
from outbox.signing.verify import verify
from relay.local.receiver.server import Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from relay.local.receiver.forwarding import Forwarded

__all__ = ["Arrival", "Listener"]

_MAX_ID = 100


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it is shown. `problem` says why it does not verify; '' when it does or no secret is known.

    `status` is what it is answered with, None where its sender hung up before. `forwarded`: it was passed on to the
    application; `failure` says why that did not answer, '' when it did.
    """

    id: str
    type: str
    at: datetime
    size_bytes: int
    status: int | None
    verified: bool
    problem: str
    body: Any
    forwarded: bool = False
    failure: str = ""


@dataclass(slots=True)
class Listener:
    """Verifies each request where it knows secrets, shows it, and answers: `status`, 401, or 405 to all but POST.

    With `forward`, a request that verifies is passed on, and its answer is the application's instead of `status`.
    `show` raises BrokenPipeError when nobody reads any more; `unread` is set then.
    """

    secrets: Sequence[str] = field(repr=False)
    status: int
    show: Callable[[Arrival], None]
    scheme: str = "standard"
    forward: Callable[[Request], Awaitable[Forwarded]] | None = None
    unread: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: Request) -> Response:
        """Show and answer one request."""
        if request.method != "POST":
            return Response(405, b"webhooks come by POST\n")
        problem = self._problem_of(request)
        status = 401 if problem else self.status
        arrival = self._arrival(request, problem, status)
        if problem or self.forward is None:
            self._show(arrival)
            return Response(status)
        try:
            came = await self.forward(request)
        except asyncio.CancelledError:
            self._show(replace(arrival, status=None, forwarded=True, failure="the sender hung up first"))
            raise
        self._show(replace(arrival, status=came.response.status, forwarded=True, failure=came.failure))
        return came.response

    def _show(self, arrival: Arrival) -> None:
        try:
            self.show(arrival)
        except BrokenPipeError:
            self.unread.set()

    def _problem_of(self, request: Request) -> str:
        if self.secrets:
            try:
                verify(self.secrets, request.headers, request.body, scheme=self.scheme)
            except SignatureError as error:
                return str(error)
        return ""

    def _arrival(self, request: Request, problem: str, status: int) -> Arrival:
        body = _parsed(request.body)
        kind = body.get("type") if isinstance(body, dict) else None
        return Arrival(
            id=request.headers.get("webhook-id", "")[:_MAX_ID],
            type=kind if isinstance(kind, str) else "",
            at=datetime.now(UTC),
            size_bytes=len(request.body),
            status=status,
            verified=bool(self.secrets) and not problem,
            problem=problem,
            body=body,
        )


def _parsed(body: bytes) -> Any:
    """Return the body as JSON, or as text where it is none."""
    try:
        return json.loads(body, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return body.decode("utf-8", errors="replace")


def _finite(number: str) -> float:
    """Refuse NaN and Infinity, which Python reads and JSON does not know, and what is too large for a float."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value
