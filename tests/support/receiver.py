"""A receiver of webhooks as a process: verifies, writes down what came before it answers, misbehaves as told.

`python -m tests.support.receiver LOG SECRET` prints its port. relay.local.receiver.logged says what LOG holds; on top
come `closed` (connection) and, before a batch, `members` (its body, and its events). A POST to its own `/-/begin`
starts anew with another log.

POSTs also tell it what to do: `/-/plan` sets how a path answers the first, second, … request of one event (the
last of the plan repeats): a status such as "200", "hang" (never), "cut" (close without an answer), "hold" (until
`/-/release`, which gives the status), or "0.5:200" (a status after so many seconds).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import sys
from collections import Counter
from typing import Any

from relay.local.receiver.logged import LoggedReceiver
from relay.local.receiver.server import Request, Response, serve
from tests.support.namespace import inside


class Receiver(LoggedReceiver):
    """Answers as its plans say, and keeps what is held."""

    def __init__(self, log: str, secret: str) -> None:
        super().__init__(secret, lambda line: os.write(self._log, line.encode()))
        self._begin(log)

    def _begin(self, log: str) -> None:
        """Forget everything and write to another log."""
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._numbers = itertools.count(1)
        self._plans: dict[str, list[str]] = {}
        self._held: dict[int, tuple[str, asyncio.Future[int]]] = {}
        self._seen: Counter[tuple[str, str]] = Counter()

    async def handle(self, request: Request) -> Response | None:
        """Take one request: a command of the test, or a webhook."""
        if not request.target.startswith("/-/"):
            if request.body.startswith(b"["):
                self._note_members(request.body)
            return await super().handle(request)
        self._obey(request.target, json.loads(request.body))
        return Response(200)

    def _note_members(self, body: bytes) -> None:
        """Write down which events a batch holds, each with the hash of its own part."""
        events = [(one["id"], _hash(json.dumps(one).encode())) for one in json.loads(body)]
        self.write("members", body=_hash(body), events=events)

    def plan_for(self, path: str, event_id: str) -> str:
        turn = self._seen[path, event_id]
        self._seen[path, event_id] += 1
        plan = self._plans.get(path, ["200"])
        return plan[min(turn, len(plan) - 1)]

    async def _status(self, number: int, path: str, plan: str) -> int | None:
        if plan == "cut":
            return None
        if plan == "hang":
            await asyncio.get_running_loop().create_future()
        if plan == "hold":
            return await self._hold(number, path)
        delay, _, status = plan.rpartition(":")
        if delay:
            await asyncio.sleep(float(delay))
        return int(status)

    async def _hold(self, number: int, path: str) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._held[number] = path, answer
        return await answer

    def _obey(self, command: str, facts: dict[str, Any]) -> None:
        if command == "/-/begin":
            self._begin(facts["log"])
        elif command == "/-/plan":
            self._plans[facts["path"]] = facts["plan"]
        else:
            self._release(**facts)

    def _release(self, status: int, request: int | None, path: str | None) -> None:
        for number, (held_path, answer) in list(self._held.items()):
            if request in (None, number) and path in (None, held_path):
                del self._held[number]
                if not answer.cancelled():  # the sender hung up meanwhile
                    answer.set_result(status)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def main(log: str, secret: str, namespace: str = "") -> None:
    """Serve on a free port of 127.0.0.1, and of a network namespace if one is named, until standard input ends."""
    receiver = Receiver(log, secret)

    def closed(number: int) -> None:
        receiver.write("closed", connection=number)

    port = (await serve(receiver.handle, 0, closed)).sockets[0].getsockname()[1]
    if namespace:
        with inside(namespace):
            await serve(receiver.handle, port, closed)
    print(port, flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
