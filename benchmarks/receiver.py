"""The receiver: a process that answers every POST with 204 and counts. It is told what to do on its standard input.

    python -m benchmarks.receiver [--certificate FILE] [--log-ids] [--close] [--takes N] [--hang]

First it prints its port. Then, for each line it reads: `reset` forgets, `report` prints one JSON object, `count` only
how many came, `hang up` closes every connection. A report has `count`, `first` and `last` (Unix seconds of the first
and the last request) and, with --log-ids, `arrivals`: webhook-id to the monotonic clock in nanoseconds, the first time
it came. With --close each connection serves one request. With --takes it takes so many a second and answers 429 to what
comes beyond, which is counted and not among the arrivals. With --hang it never answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time

import httptools
import uvloop

TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
LAST_ANSWER = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"


class Tally:
    """What arrived since the last reset."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.open: set[Counter] = set()
        self.reset()

    def reset(self) -> None:
        self.count, self.first, self.last = 0, 0.0, 0.0
        self.arrivals: dict[str, int] = {}

    def note(self) -> None:
        self.count += 1
        self.last = time.time()
        self.first = self.first or self.last

    def report(self) -> str:
        return json.dumps({"count": self.count, "first": self.first, "last": self.last, "arrivals": self.arrivals})


class Counter(asyncio.Protocol):
    """One connection that counts requests; it looks at nothing else of them."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._tally.open.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._tally.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._tally.note()
        self.transport.write(self._tally.answer)


class Logger(Counter):
    """One connection that also notes when each webhook-id came."""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"webhook-id":
            self._tally.arrivals.setdefault(value.decode(), time.monotonic_ns())


class Limited(Counter):
    """One connection to a receiver that takes `rate` a second, all connections together."""

    rate = tokens = 0.0
    since = time.monotonic()
    _id = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"webhook-id":
            self._id = value.decode()

    def on_message_complete(self) -> None:
        now = time.monotonic()
        Limited.tokens = min(Limited.rate, Limited.tokens + (now - Limited.since) * Limited.rate)
        Limited.since = now
        if Limited.tokens < 1:
            self._tally.note()
            self.transport.write(TOO_MANY)
            return
        Limited.tokens -= 1
        self._tally.arrivals.setdefault(self._id, time.monotonic_ns())
        super().on_message_complete()


class Holding(Counter):
    """One connection to a receiver that takes a request and never answers it."""

    def on_message_complete(self) -> None:
        self._tally.note()


def obey(tally: Tally) -> None:
    """Do what one line on standard input says; its end ends the process."""
    line = sys.stdin.readline()
    if not line:
        asyncio.get_running_loop().stop()
    elif line == "reset\n":
        tally.reset()
    elif line == "hang up\n":
        for connection in list(tally.open):
            connection.transport.close()
    else:
        print(tally.count if line == "count\n" else tally.report(), flush=True)


async def serve(certificate: str | None, kind: type[Counter], answer: bytes) -> None:
    tally, context = Tally(answer), None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: kind(tally), "127.0.0.1", 0, ssl=context, backlog=4096)
    loop.add_reader(sys.stdin.fileno(), obey, tally)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", help="PEM file with key and chain: speak TLS")
    parser.add_argument("--log-ids", action="store_true")
    parser.add_argument("--close", action="store_true", help="close each connection after one answer")
    parser.add_argument("--takes", type=float, metavar="N", help="answer 429 beyond so many a second")
    parser.add_argument("--hang", action="store_true", help="take each request and never answer")
    asked = parser.parse_args()
    Limited.rate = Limited.tokens = asked.takes or 0.0
    kind, answer = (
        Limited if asked.takes else Holding if asked.hang else Logger if asked.log_ids else Counter,
        LAST_ANSWER if asked.close else ANSWER,
    )
    try:
        uvloop.run(serve(asked.certificate, kind, answer))
    except RuntimeError:  # the loop was stopped because standard input ended
        return


if __name__ == "__main__":
    main()
