"""A customer's receiver of both applications: it was written for what they sent, and was never changed."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


def verify(body: bytes, headers: Any, secret: str) -> bool:
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, headers.get("X-Webhook-Signature", ""))


class Receiver:
    """Takes what is signed with the secret of the path, answers as it is told, 200 by default, and keeps the bodies."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.secrets: dict[str, str] = {}
        self.answers: list[int] = []
        self.bodies: list[dict[str, Any]] = []
        self.refused: list[bytes] = []

    def take(self, path: str, headers: Any, body: bytes) -> int:
        if not verify(body, headers, self.secrets[path.strip("/")]):
            self.refused.append(body)
            return 401
        event = json.loads(body)
        assert headers["X-Webhook-Event"] == event["event"]
        assert headers["Content-Type"] == "application/json"
        self.bodies.append(event)
        return self.answers.pop(0) if self.answers else 200


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.take(self.path, self.headers, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield receiver
    server.shutdown()
    server.server_close()
