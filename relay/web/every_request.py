"""What holds for every request: an id, a bounded body, HEAD and OPTIONS, headers, one line in the log, no traceback.

An ASGI middleware, outside of everything that knows routes.
"""

import logging
import re
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outbox.ids import new_uuid7, text_id
from relay.telemetry.redaction import redact
from relay.web.problems import Problem, problem_response, unexpected

__all__ = ["MAX_BODY_BYTES", "EveryRequest"]

log = logging.getLogger("relay.web")

MAX_BODY_BYTES = 1_048_576
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


class EveryRequest:
    """The middleware. `methods_at` returns the methods that there are at the path of a scope."""

    def __init__(self, app: ASGIApp, methods_at: Callable[[Scope], list[str]]) -> None:
        self._app = app
        self._methods_at = methods_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else text_id("req", new_uuid7())
        # Nothing of an application around: what it keeps there by a name of ours would be believed.
        scope = {**scope, "state": {"request_id": request_id}}
        answer = _Answer(scope, send)
        try:
            await self._answer(scope, receive, answer)
        except Exception as error:
            fields = {"request_id": request_id}
            log.error("request %s: %s", request_id, redact(repr(error)), exc_info=error, extra=fields)
            if answer.status is None:
                await problem_response(Request(scope), unexpected())(scope, receive, answer)
        answer.log()

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or len(length) > 10 or int(length) > MAX_BODY_BYTES:
            too_large = Problem(
                413, "too-large", f"body: is longer than {MAX_BODY_BYTES} bytes", mend="send less at once"
            )
            await problem_response(Request(scope), too_large)(scope, receive, answer)
            return
        if scope["method"] == "OPTIONS" and (allowed := self._methods_at(scope)):
            await answer(
                {"type": "http.response.start", "status": 204, "headers": [(b"allow", ", ".join(allowed).encode())]}
            )
            await answer({"type": "http.response.body", "body": b""})
            return
        if scope["method"] == "HEAD":
            scope["state"]["is_head"] = True  # for what a mere look may not do
            scope = {**scope, "method": "GET"}
        await self._app(scope, _bounded(receive), answer)


def _bounded(receive: Receive) -> Receive:
    """Return what receives no more than MAX_BODY_BYTES, also from a request that does not say how long it is."""
    taken = 0

    async def receive_some() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
        return message

    return receive_some


class _Answer:
    """Sends an answer with the headers that every one has, without the body where it is to HEAD."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._is_head = scope["method"] == "HEAD"
        self._begun_at = time.monotonic()
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._add_headers(message)
        elif self._is_head:
            message = {**message, "body": b""}
        await self._send(message)

    def _add_headers(self, message: Message) -> None:
        message.setdefault("headers", [])
        headers, state = MutableHeaders(scope=message), self._scope["state"]
        headers["X-Request-Id"] = state["request_id"]
        headers["X-Content-Type-Options"] = "nosniff"
        headers.setdefault("Cache-Control", "no-store")
        for name, value in state.get("rate_headers", {}).items():
            headers[name] = value

    def log(self) -> None:
        """Write the one line; never the query, which may hold a signed link."""
        state: dict[str, Any] = self._scope["state"]
        milliseconds = (time.monotonic() - self._begun_at) * 1000
        path, caller = ascii(self._scope["path"])[1:-1][:200], state.get("caller", "-")
        log.info(
            "request %s: %s %s %s in %.0f ms by %s",
            *(state["request_id"], self._scope["method"], path, self.status, milliseconds, caller),
            extra={"request_id": state["request_id"]},
        )
