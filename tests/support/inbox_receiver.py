"""The receiving application, as a process: it acts upon each message by outbox.inbox, in a PostgreSQL of its own.

`python -m tests.support.inbox_receiver DATABASE_URL PORT SECRET AFTER POINT`: after so many messages it kills itself
with SIGKILL at the point `taken` (the id is stored), `acted` (before COMMIT) or `committed` (before the answer); 0 is
never.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import sqlalchemy as sa
from sqlalchemy.orm import Session

import outbox
import outbox.inbox

SOURCE = "shop"


class Crash:
    """Ends the process at one point of the message with this number."""

    def __init__(self, after: int, point: str) -> None:
        self._after, self._point = after, point
        self._numbers = itertools.count(1)

    def begin(self) -> int:
        return next(self._numbers)

    def at(self, point: str, number: int) -> None:
        if self._after and number >= self._after and point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


def handler(engine: sa.Engine, secret: str, crash: Crash) -> type[BaseHTTPRequestHandler]:
    """Return what answers each request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            request = outbox.inbox.Request(self.command, self.path, tuple(self.headers.items()), body)
            number = crash.begin()
            with Session(engine) as session:

                def act(message: outbox.inbox.Received) -> None:
                    crash.at("taken", number)
                    session.execute(sa.text("insert into effect values (:id)"), {"id": message.id})
                    message.entity = message.id
                    outbox.record(session, "shop.next", message.json()["data"], key=message.id)
                    session.flush()
                    crash.at("acted", number)

                status = outbox.inbox.process(session, request, secret, act, source=SOURCE).status
            crash.at("committed", number)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    return Handler


class Server(ThreadingHTTPServer):
    """One thread a connection; more than a few may come at once."""

    daemon_threads = True
    request_queue_size = 128


def main(url: str, port: str, secret: str, after: str, point: str) -> None:
    """Serve until killed."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), pool_size=16, max_overflow=64)
    Server(("127.0.0.1", int(port)), handler(engine, secret, Crash(int(after), point))).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
