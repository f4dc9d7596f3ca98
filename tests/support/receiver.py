"""A receiver of webhooks as a process: verifies, writes down what came before it answers, misbehaves as told.

`python -m tests.support.receiver LOG SECRET` prints its port. LOG gets one JSON object a line, each with `what` and
`at` (Unix time): `received` (request, connection, port of the sender, path, id, body, type; written before the answer),
then `answered`
(request, status) or `cut`; `refused` (a request that does not verify); `closed` (connection). A POST to its own
`/-/begin` starts anew with another log.

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
import time
from collections import Counter
from typing import Any

import httptools

from outbox.errors import SignatureError
from outbox.signing.verify import verify

_NUMBERS = itertools.count(1)


class Receiver:
    """Everything the connections share: the log, the plans, and what is held."""

    def __init__(self, log: str, secret: str) -> None:
        self.secret = secret
        self.begin(log)

    def begin(self, log: str) -> None:
        """Forget everything and write to another log."""
        self.plans: dict[str, list[str]] = {}
        self.held: dict[int, tuple[str, Connection]] = {}
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._seen: Counter[tuple[str, str]] = Counter()
        self._requests = 0

    def write(self, what: str, **facts: object) -> None:
        """Append one line to the log."""
        os.write(self._log, json.dumps({"what": what, "at": time.time(), **facts}).encode() + b"\n")

    def handle(self, connection: Connection, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Take one request: a command of the test, or a webhook."""
        if path.startswith("/-/"):
            self._command(path, json.loads(body))
            connection.respond(200)
            return
        self._requests += 1
        try:
            webhook = verify([self.secret], headers, body)
        except SignatureError as error:
            self.write("refused", request=self._requests, path=path, reason=str(error))
            connection.respond(401)
            return
        digest, kind = hashlib.sha256(body).hexdigest(), webhook.json()["type"]
        facts = {"path": path, "id": webhook.id, "body": digest, "type": kind}
        self.write("received", request=self._requests, connection=connection.number, port=connection.port, **facts)
        turn = self._seen[path, webhook.id]
        self._seen[path, webhook.id] += 1
        plan = self.plans.get(path, ["200"])
        connection.request = self._requests
        self._act(connection, path, plan[min(turn, len(plan) - 1)])

    def _act(self, connection: Connection, path: str, step: str) -> None:
        delay, _, status = step.rpartition(":")
        if delay:
            asyncio.get_running_loop().call_later(float(delay), self.answer, connection, int(status))
        elif step == "hold":
            self.held[connection.request] = path, connection
        elif step == "cut":
            self.write("cut", request=connection.request)
            connection.request = 0
            connection.transport.abort()
        elif step != "hang":
            self.answer(connection, int(step))

    def answer(self, connection: Connection, status: int) -> None:
        """Answer, and write down that the answer left (or that the sender was gone)."""
        if connection.transport.is_closing():
            return
        connection.respond(status)
        self.write("answered", request=connection.request, status=status)
        connection.request = 0

    def _command(self, path: str, facts: dict[str, Any]) -> None:
        if path == "/-/begin":
            self.begin(facts["log"])
            return
        if path == "/-/plan":
            self.plans[facts["path"]] = facts["plan"]
            return
        for request, (held_path, connection) in list(self.held.items()):
            if facts["request"] in (None, request) and facts["path"] in (None, held_path):
                del self.held[request]
                self.answer(connection, facts["status"])


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other."""

    transport: asyncio.Transport

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._parser = httptools.HttpRequestParser(self)
        self.number = next(_NUMBERS)
        self.request = 0  # the number of the webhook that waits for its answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.port = transport.get_extra_info("peername")[1]

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.held.pop(self.request, None)
        self._receiver.write("closed", connection=self.number)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body = b"", list[tuple[bytes, bytes]](), b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._receiver.handle(self, self._path.decode(), self._headers, self._body)

    def respond(self, status: int) -> None:
        """Answer with a status and no body; the connection stays open."""
        self.transport.write(b"HTTP/1.1 %d Status\r\ncontent-length: 0\r\n\r\n" % status)


async def main(log_path: str, secret: str) -> None:
    """Serve on a free port of 127.0.0.1 until standard input ends."""
    receiver, loop = Receiver(log_path, secret), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(receiver), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
