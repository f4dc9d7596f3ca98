"""The demo's receiver, a process of its own: verifies a request, writes it down, then answers or misbehaves.

Its log (see relay.local.receiver.logged) is its standard output; the first line is `listening`. On standard input it
takes `hold` (answer nothing for now) and `release`, and ends with it. The secret is in WEBHOOK_SECRET.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from relay.local.receiver.logged import LoggedReceiver
from relay.local.receiver.server import serve

__all__ = ["Receiver"]

_MISBEHAVING = 0.06
_AGAIN = 0.25  # of those that misbehaved once, so many do it a second time
_WAYS, _WEIGHTS = ("error", "cut", "late"), (5, 4, 2)
_LATE_BY_SECONDS = 0.5


class Receiver(LoggedReceiver):
    """Answers each webhook as its seed decides: `ok`, an `error` (500), a `cut` connection, or too `late`."""

    def __init__(self, secret: str, timeout_seconds: float, seed: int) -> None:
        super().__init__(secret, _print)
        self._timeout_seconds = timeout_seconds
        self._chance = random.Random(seed)
        self._plans: dict[str, list[str]] = {}
        self._free = asyncio.Event()
        self._free.set()

    async def run(self) -> None:
        """Serve on a free port of 127.0.0.1 until standard input ends."""
        server = await serve(self.handle, 0)
        port = server.sockets[0].getsockname()[1]
        self.write("listening", port=port, timeout_seconds=self._timeout_seconds)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            if line == b"hold\n":
                self._free.clear()
            else:
                self._free.set()

    def plan_for(self, path: str, event_id: str) -> str:
        """Return how to answer this request of the event: ok, error, cut or late."""
        del path
        if event_id not in self._plans:
            self._plans[event_id] = self._troubles()
        return self._plans[event_id].pop() if self._plans[event_id] else "ok"

    def _troubles(self) -> list[str]:
        """Return how the receiver will misbehave at each attempt of a new event: mostly not at all."""
        if self._chance.random() >= _MISBEHAVING:
            return []
        return self._chance.choices(_WAYS, _WEIGHTS, k=1 + (self._chance.random() < _AGAIN))

    async def _status(self, number: int, path: str, plan: str) -> int | None:
        del number, path
        if plan == "late":
            await asyncio.sleep(self._timeout_seconds + _LATE_BY_SECONDS)
        await self._free.wait()
        return {"cut": None, "error": 500}.get(plan, 200)


def _print(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(Receiver(os.environ["WEBHOOK_SECRET"], float(sys.argv[1]), int(sys.argv[2])).run())
