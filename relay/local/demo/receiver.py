"""The demo's receiver, a process of its own: verifies a request, writes it down, then answers or misbehaves.

Its log is its standard output, one JSON object a line, each with `what`, `at` (Unix time) and `clock`
(time.monotonic()): `listening`; `received` (verified; written before the answer), then `answered`, `cut` or
`hung up` with the same `request`; `refused` (a request that does not verify). On standard input it takes
`hold` (answer nothing for now) and `release`, and ends with it. The secret is in WEBHOOK_SECRET.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import random
import sys
import time

from outbox.errors import SignatureError
from outbox.signing.verify import verify
from relay.local.receiver.server import Request, Response, serve

__all__ = ["Receiver"]

_MISBEHAVING = 0.06
_AGAIN = 0.25  # of those that misbehaved once, so many do it a second time
_WAYS, _WEIGHTS = ("error", "cut", "late"), (5, 4, 2)
_LATE_BY_SECONDS = 0.5


class Receiver:
    """Answers each webhook as its seed has it: `ok`, an `error` (500), a `cut` connection, or too `late`."""

    def __init__(self, secret: str, timeout_seconds: float, seed: int) -> None:
        self._secret = secret
        self._timeout_seconds = timeout_seconds
        self._chance = random.Random(seed)
        self._numbers = itertools.count(1)
        self._plans: dict[str, list[str]] = {}
        self._free = asyncio.Event()
        self._free.set()

    async def run(self) -> None:
        """Serve on a free port of 127.0.0.1 until standard input ends."""
        server = await serve(self.handle, 0)
        port = server.sockets[0].getsockname()[1]
        _write("listening", port=port, timeout_seconds=self._timeout_seconds)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            if line == b"hold\n":
                self._free.clear()
            else:
                self._free.set()

    async def handle(self, request: Request) -> Response | None:
        """Verify, write down, and only then answer as planned."""
        number = next(self._numbers)
        try:
            webhook = verify([self._secret], request.headers, request.body)
        except SignatureError as error:
            _write("refused", request=number, connection=request.connection, reason=str(error))
            return Response(401)
        plan = self._plan(webhook.id)
        _write(
            "received",
            request=number,
            id=webhook.id,
            body=hashlib.sha256(request.body).hexdigest(),
            connection=request.connection,
            connected=request.connected_at,
            plan=plan,
        )
        try:
            return await self._answer(number, plan)
        except asyncio.CancelledError:
            _write("hung up", request=number)
            raise

    def _plan(self, event_id: str) -> str:
        if event_id not in self._plans:
            self._plans[event_id] = self._troubles()
        return self._plans[event_id].pop() if self._plans[event_id] else "ok"

    def _troubles(self) -> list[str]:
        """How the receiver will misbehave towards a new event, attempt by attempt: mostly not at all."""
        if self._chance.random() >= _MISBEHAVING:
            return []
        return self._chance.choices(_WAYS, _WEIGHTS, k=1 + (self._chance.random() < _AGAIN))

    async def _answer(self, number: int, plan: str) -> Response | None:
        if plan == "late":
            await asyncio.sleep(self._timeout_seconds + _LATE_BY_SECONDS)
        await self._free.wait()
        if plan == "cut":
            _write("cut", request=number)
            return None
        status = 500 if plan == "error" else 200
        _write("answered", request=number, status=status)
        return Response(status)


def _write(what: str, **facts: object) -> None:
    sys.stdout.write(json.dumps({"what": what, "at": time.time(), "clock": time.monotonic(), **facts}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(Receiver(os.environ["WEBHOOK_SECRET"], float(sys.argv[1]), int(sys.argv[2])).run())
