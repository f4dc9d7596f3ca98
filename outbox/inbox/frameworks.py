"""Requests of frameworks: recognised by the names of their classes, none of which is imported.

Each body is read once and left where its framework looks for it, so that nobody finds the stream empty later.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from outbox._text import brief
from outbox.errors import ArgumentError
from outbox.inbox.request import MAX_BYTES, Request, check_max_bytes, pairs_of

__all__ = ["of", "read"]

R = TypeVar("R", bound=Request)

_CONSUMED = "request: its body was read before and not kept; receive it before anything else reads the request"
_PIECE = 65_536


def of(kind: type[R], request: Any, max_bytes: int) -> R:
    """Return the request of a synchronous framework as `kind`. Raises ArgumentError."""
    if _is(request, "werkzeug", "LocalProxy"):
        request = request._get_current_object()  # noqa: SLF001 - Flask's `request` stands for the current one
    if _is(request, "rest_framework", "Request"):
        request = request._request  # noqa: SLF001 - Django REST framework wraps Django's own
    if isinstance(request, Mapping) and "wsgi.input" in request:
        return kind(**_of_wsgi(request, max_bytes))
    if _is(request, "django", "HttpRequest"):
        return kind(**_of_django(request, max_bytes))
    if _is(request, ("flask", "werkzeug"), "Request"):
        return kind(**_of_werkzeug(request, max_bytes))
    raise _refusal(request)


async def read(
    request: Any, receive: Callable[[], Awaitable[Any]] | None = None, *, max_bytes: int = MAX_BYTES
) -> Request:
    """Return the request of Starlette or FastAPI, or of an ASGI application: `await read(scope, receive)`.

    Of Starlette's the body stays in the request, so that `await request.body()` and `.json()` give it again. A body of
    more than `max_bytes` is not read to its end (`too_large`).

    Raises ArgumentError for anything else, and where somebody has read the body before and did not keep it.
    """
    most = check_max_bytes(max_bytes)
    if isinstance(request, Mapping) and request.get("type") == "http" and receive is not None:
        return await _read_asgi(request, receive, most)
    if _is(request, "starlette", "Request"):
        return await _read_starlette(request, most)
    return Request.of(request, max_bytes=most)


def _is(request: object, packages: str | tuple[str, ...], name: str) -> bool:
    roots = (packages,) if isinstance(packages, str) else packages
    return any(kind.__name__ == name and kind.__module__.partition(".")[0] in roots for kind in type(request).__mro__)


def _refusal(request: object) -> ArgumentError:
    if _is(request, "starlette", "Request"):
        mend = "read it first: `await outbox.inbox.read(request)`"
    elif isinstance(request, Mapping) and "asgi" in request:
        mend = "read it first: `await outbox.inbox.read(scope, receive)`"
    elif isinstance(request, bytes | str | dict | list):
        mend = "pass the request itself, not its body or parsed JSON; or outbox.inbox.Request with the raw body"
    else:
        mend = "pass outbox.inbox.Request(method, path, headers, body), with the body's raw bytes"
    return ArgumentError(f"request: not {brief(request)}; {mend}")


def _declared(length: object) -> int | None:
    """Return a Content-Length; None where there is none that can be read."""
    text = str(length if length is not None else "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _made(
    method: str, path: str, headers: Any, body: bytes | None, declared: int | None, max_bytes: int
) -> dict[str, Any]:
    """Return the fields of a request; a body of None, or of more than `max_bytes`, was too large."""
    if body is None or len(body) > max_bytes:
        size = max(declared or 0, len(body or b""), max_bytes + 1)
        return {"method": method, "path": path, "headers": headers, "body": b"", "too_large": True, "size": size}
    return {"method": method, "path": path, "headers": headers, "body": body}


def _of_wsgi(environ: Any, max_bytes: int) -> dict[str, Any]:
    headers = [(name[5:].replace("_", "-").title(), value) for name, value in environ.items() if name[:5] == "HTTP_"]
    named = {"Content-Type": environ.get("CONTENT_TYPE"), "Content-Length": environ.get("CONTENT_LENGTH")}
    headers += [(name, value) for name, value in named.items() if value]
    declared = _declared(environ.get("CONTENT_LENGTH"))
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    body: bytes | None = None
    if declared is None and not environ.get("wsgi.input_terminated"):
        body = b""  # the stream has no end that may be waited for
    elif declared is None or declared <= max_bytes:
        body = _read_stream(environ["wsgi.input"], max_bytes + 1 if declared is None else declared)
        environ["wsgi.input"] = io.BytesIO(body)
        if declared and not body:
            raise ArgumentError(_CONSUMED)
    return _made(environ.get("REQUEST_METHOD", ""), path, headers, body, declared, max_bytes)


def _read_stream(stream: Any, most: int) -> bytes:
    pieces: list[bytes] = []
    while most > 0 and (piece := stream.read(min(most, _PIECE))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _of_django(request: Any, max_bytes: int) -> dict[str, Any]:
    declared = _declared(request.META.get("CONTENT_LENGTH"))
    body: bytes | None = None
    if declared is None or declared <= max_bytes:
        try:
            body = request.body
        except Exception as error:
            if type(error).__name__ == "RawPostDataException":
                raise ArgumentError(_CONSUMED) from None
            if type(error).__name__ != "RequestDataTooBig":
                raise
    return _made(request.method or "", request.path, request.headers, body, declared, max_bytes)


def _of_werkzeug(request: Any, max_bytes: int) -> dict[str, Any]:
    declared = _declared(request.headers.get("Content-Length"))
    body: bytes | None = None
    if declared is None or declared <= max_bytes:
        if declared is None and request.max_content_length is None:
            request.max_content_length = max_bytes + 1  # a longer stream ends there as if that were all
        try:
            body = request.get_data(cache=True)
        except Exception as error:
            if type(error).__name__ != "RequestEntityTooLarge":
                raise
        if body == b"" and declared:
            raise ArgumentError(_CONSUMED)
    return _made(request.method, request.root_path + request.path, request.headers, body, declared, max_bytes)


async def _read_starlette(request: Any, max_bytes: int) -> Request:
    declared = _declared(request.headers.get("content-length"))
    body: bytes | None = getattr(request, "_body", None)
    if body is None and (declared is None or declared <= max_bytes):
        try:
            body = await _gathered(request.stream(), max_bytes)
        except RuntimeError as error:  # its "Stream consumed"
            if "consumed" not in str(error):
                raise
            raise ArgumentError(_CONSUMED) from None
        if body is not None:
            request._body = body  # noqa: SLF001 - where its own body() keeps it
    return Request(**_made(request.method, request.url.path, request.headers.raw, body, declared, max_bytes))


async def _gathered(pieces: AsyncIterator[bytes], max_bytes: int) -> bytes | None:
    """Return the whole of a stream, None as soon as it is longer than allowed."""
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > max_bytes:
            return None
    return bytes(body)


async def _read_asgi(scope: Any, receive: Callable[[], Awaitable[Any]], max_bytes: int) -> Request:
    headers = pairs_of(scope["headers"])
    declared = _declared(next((value for name, value in headers if name.lower() == "content-length"), None))
    body = None
    if declared is None or declared <= max_bytes:
        body = await _gathered(_pieces(receive), max_bytes)
    return Request(**_made(scope["method"], scope["path"], headers, body, declared, max_bytes))


async def _pieces(receive: Callable[[], Awaitable[Any]]) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionResetError("the client went away before the whole body came")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
