"""A receiver of webhooks: a real HTTP server on this machine that verifies, keeps what came, and answers as told."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, TypeAlias

from outbox.errors import SignatureError
from outbox.signing.verify import Webhook, new_secret, verify
from outbox.subscriptions import add
from outbox.subscriptions.endpoints import also_allowed
from outbox.subscriptions.fields import NewSubscription

__all__ = ["Answer", "ReceivedRequest", "WebhookReceiver"]

_UNVERIFIED = 401


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver answers."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it came, in the receiver's order.

    headers: names in lower case. error: why its signature does not verify, None where it does. status: what was
    answered. id, type and data: of the webhook in it; None where it is not verified, or not in the standard format.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    webhook: Webhook | None
    error: str | None
    status: int

    @property
    def id(self) -> str | None:
        """The webhook-id, which is the event's id."""
        return self.headers.get("webhook-id") if self.webhook is not None else None

    @property
    def type(self) -> str | None:
        """The event's type."""
        found = self._of_body("type")
        return found if isinstance(found, str) else None

    @property
    def data(self) -> Any:
        """The event's data."""
        return self._of_body("data")

    def _of_body(self, name: str) -> Any:
        document = None if self.webhook is None else self.webhook.json()
        return document.get(name) if isinstance(document, dict) else None


_Scripted: TypeAlias = int | Answer | Callable[[ReceivedRequest], int | Answer]


class WebhookReceiver:
    """A receiver on 127.0.0.1; a context manager that starts and stops it.

    `url` is where it listens, `secret` what it verifies with. While it runs, this process may subscribe endpoints
    on this machine. A request that does not verify is answered 401; every other by the script, and 200 where that has
    ended.

    Args:
        secret: what requests are signed with; a new one by default. '' takes what is unsigned too.
        scheme: the scheme of the signatures.
    """

    def __init__(self, *, secret: str | None = None, scheme: str = "standard") -> None:
        self.scheme = scheme
        self.secret = new_secret(scheme) if secret is None else secret
        self._requests: list[ReceivedRequest] = []
        self._script: deque[_Scripted] = deque()
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._port = 0

    def __enter__(self) -> Self:
        server = _Server(("127.0.0.1", 0), _Handler)
        server.receiver = self
        self._port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="webhook-receiver", daemon=True)
        self._open.enter_context(also_allowed(["127.0.0.0/8", "::1/128"]))
        self._open.callback(server.server_close)
        thread.start()
        self._open.callback(thread.join)
        self._open.callback(server.shutdown)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def url(self) -> str:
        """Where it listens; any path below is its own too."""
        return f"http://127.0.0.1:{self._port}/"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Return what came so far, the verified and the others, in the order of arrival."""
        with self._lock:
            return [*self._requests]

    def answers(self, *script: _Scripted) -> None:
        """Answer the next verified requests so: a status, an `Answer`, or a function of the request that returns one.

        A function may wait, as a slow receiver does. Another call adds to what is left.
        """
        self._script.extend(script)

    def subscribe(self, connection: Any, *types: str, path: str = "", **settings: Any) -> NewSubscription:
        """Subscribe this receiver to the types (every one by default), as `outbox.subscribe` does; the caller commits.

        `settings` are that function's; secret and scheme are the receiver's.
        """
        given = {"secret": self.secret, "scheme": self.scheme} if self.secret else {"scheme": "none"}
        return add(connection, self.url + path.removeprefix("/"), list(types or ("*",)), **{**given, **settings})

    def receive(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Verify and keep a request; return the answer. What the server calls, and a test without one may."""
        webhook, error = self._verified(headers, body)
        request = ReceivedRequest(path, headers, body, webhook, error, _UNVERIFIED)
        said = Answer(_UNVERIFIED, body=b"the signature does not verify") if error else self._next(request)
        with self._lock:
            self._requests.append(ReceivedRequest(path, headers, body, webhook, error, said.status))
        return said

    def _verified(self, headers: Mapping[str, str], body: bytes) -> tuple[Webhook | None, str | None]:
        if not self.secret:
            return Webhook(headers.get("webhook-id", ""), None, body), None
        try:
            return verify(self.secret, headers, body, scheme=self.scheme), None
        except SignatureError as error:
            return None, str(error)

    def _next(self, request: ReceivedRequest) -> Answer:
        with self._lock:
            said = self._script.popleft() if self._script else 200
        if callable(said):
            said = said(request)
        return Answer(said) if isinstance(said, int) else said


class _Server(ThreadingHTTPServer):
    receiver: WebhookReceiver


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        said = self.server.receiver.receive(self.path, headers, body)
        self.send_response(said.status)
        for name, value in {**said.headers, "content-length": str(len(said.body)), "connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: a test has `requests`."""
