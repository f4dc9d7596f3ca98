"""Receivers that misbehave as a test says: a thread a request, on a port of this machine."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import NamedTuple

__all__ = ["HANG", "RESET", "Answer", "Arrived", "FarEnd", "answering", "together", "waits"]

HANG, RESET = "hang", "reset"
_MEET_SECONDS = 15

Answer = int | str | bytes | Callable[[], int]
"""A status; HANG until the caller has gone; RESET of the connection; a body for 200; or what returns a status."""


class Arrived(NamedTuple):
    """A request: its headers, in lower case, its body, and when it came (`time.monotonic`)."""

    headers: dict[str, str]
    body: str
    at: float


class FarEnd:
    """What came to each path, and what the next requests to it are answered with; 200 after that."""

    def __init__(self) -> None:
        self.port = 0
        self.received: dict[str, list[Arrived]] = defaultdict(list)
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self._lock = threading.Lock()

    def url(self, path: str) -> str:
        """Return the URL of a path, given without its slash."""
        return f"http://127.0.0.1:{self.port}/{path}"

    def will(self, path: str, *answers: Answer) -> None:
        """Answer the next requests to a path so."""
        self._answers[path] += answers

    def take(self, path: str, arrived: Arrived) -> Answer:
        """Note a request, and return what to answer it with."""
        with self._lock:
            self.received[path].append(arrived)
            return self._answers[path].pop(0) if self._answers[path] else 200


def together(count: int) -> Callable[[], int]:
    """Return an answer that is 200 once so many requests are there at the same time, and else 503."""
    met = threading.Barrier(count)

    def answer() -> int:
        try:
            met.wait(_MEET_SECONDS)
        except threading.BrokenBarrierError:
            return 503
        return 200

    return answer


@contextmanager
def answering(port: int = 0) -> Iterator[FarEnd]:
    """Receive on a port, by default a free one."""
    far_end = FarEnd()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = far_end.take(self.path[1:], Arrived(headers, body, time.monotonic()))
            if answer == HANG:
                self.connection.recv(1)
            elif answer == RESET:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self._answer(answer)
            self.close_connection = True

        def _answer(self, answer: Answer) -> None:
            self.send_response(answer if isinstance(answer, int) else answer() if callable(answer) else 200)
            content = answer if isinstance(answer, bytes) else b"ok"
            self.send_header("location", "/elsewhere")  # read by whoever follows a redirect
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None: ...

    with Server(("127.0.0.1", port), Handler) as server:
        far_end.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield far_end
        finally:
            server.shutdown()
            thread.join()


def waits(arrived: Sequence[Arrived]) -> list[float]:
    """Return how many seconds passed between each request and the next."""
    return [later.at - earlier.at for earlier, later in pairwise(arrived)]
