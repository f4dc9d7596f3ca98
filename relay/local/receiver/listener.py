"""A receiver that verifies webhooks and hands them on to be shown; nothing is printed here."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from outbox.errors import SignatureError
from outbox.signing.verify import verify
from relay.local.receiver.server import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Arrival", "Listener"]

_MAX_ID = 100


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it is shown. `problem` says why it does not verify; '' when it does or no secret is known."""

    id: str
    type: str
    at: datetime
    size_bytes: int
    status: int
    verified: bool
    problem: str
    body: Any


@dataclass(slots=True)
class Listener:
    """Verifies each request where it knows secrets, shows it, and answers: `status`, 401, or 405 to all but POST.

    `show` raises BrokenPipeError when nobody reads any more; `unread` is set then.
    """

    secrets: Sequence[str] = field(repr=False)
    status: int
    show: Callable[[Arrival], None]
    scheme: str = "standard"
    unread: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: Request) -> Response:
        """Show and answer one request."""
        if request.method != "POST":
            return Response(405, b"webhooks come by POST\n")
        arrival = self._arrival(request)
        try:
            self.show(arrival)
        except BrokenPipeError:
            self.unread.set()
        return Response(arrival.status)

    def _arrival(self, request: Request) -> Arrival:
        problem = ""
        if self.secrets:
            try:
                verify(self.secrets, request.headers, request.body, scheme=self.scheme)
            except SignatureError as error:
                problem = str(error)
        body = _parsed(request.body)
        kind = body.get("type") if isinstance(body, dict) else None
        return Arrival(
            id=request.headers.get("webhook-id", "")[:_MAX_ID],
            type=kind if isinstance(kind, str) else "",
            at=datetime.now(UTC),
            size_bytes=len(request.body),
            status=401 if problem else self.status,
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
