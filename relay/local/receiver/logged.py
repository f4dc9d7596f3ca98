"""A receiver that verifies webhooks and writes down what comes and how it is answered: of the demo, and of tests.

Its log has one JSON object a line, each with `what`, `at` (Unix time) and `clock` (time.monotonic()): `received`
(verified; written before the answer), then `answered`, `cut` or `hung up` with the same `request`; `refused` (a
request that does not verify).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from outbox.errors import SignatureError
from outbox.signing.verify import verify
from relay.local.receiver.server import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LoggedReceiver"]


class LoggedReceiver(ABC):
    """Verifies each request, writes it down, answers as planned for its event, and writes down how that ended."""

    def __init__(self, secret: str, write_line: Callable[[str], None]) -> None:
        self._secret = secret
        self._write_line = write_line
        self._numbers = itertools.count(1)

    @abstractmethod
    def plan_for(self, path: str, event_id: str) -> str:
        """Return how to answer the next request of this event on this path."""

    @abstractmethod
    async def _status(self, number: int, path: str, plan: str) -> int | None:
        """Wait as planned and return the status to answer with; None cuts the connection."""

    async def handle(self, request: Request) -> Response | None:
        """Verify, write down, and only then answer as planned."""
        number, path = next(self._numbers), request.target
        common = {"request": number, "path": path, "connection": request.connection}
        try:
            webhook = verify([self._secret], request.headers, request.body)
        except SignatureError as error:
            self.write("refused", **common, reason=str(error))
            return Response(401)
        plan = self.plan_for(path, webhook.id)
        body = hashlib.sha256(request.body).hexdigest()
        facts = {"connected": request.connected_at, "port": request.sender_port, "plan": plan}
        self.write("received", **common, id=webhook.id, body=body, **facts)
        try:
            status = await self._status(number, path, plan)
        except asyncio.CancelledError:
            self.write("hung up", request=number)
            raise
        if status is None:
            self.write("cut", request=number)
            return None
        self.write("answered", request=number, status=status)
        return Response(status)

    def write(self, what: str, **facts: object) -> None:
        """Append one line to the log."""
        self._write_line(json.dumps({"what": what, "at": time.time(), "clock": time.monotonic(), **facts}) + "\n")
