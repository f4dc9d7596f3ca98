"""A small HTTP/1.1 server for receivers on this machine: keep-alive, pipelining, chunked bodies, bounds.

A handler is a coroutine from Request to Response, or to None, which cuts the connection without an answer.
It is cancelled when the client hangs up first, so it can take note of that.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import responses

import httptools

__all__ = ["Handler", "Request", "Response", "serve"]

_MAX_HEADER_BYTES = 64 * 1024
_MAX_BODY_BYTES = 16 * 1024 * 1024
_MAX_PIPELINED = 32
_CONNECTIONS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request. `connected_at` is time.monotonic(); header names lower case, repeats joined by a comma."""

    connection: int
    connected_at: float
    sender_port: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """Status code and body; plain text, unless `headers` (names lower case) have a content-type."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response | None]]


async def serve(handler: Handler, port: int, on_closed: Callable[[int], None] | None = None) -> asyncio.Server:
    """Listen on 127.0.0.1:`port` (0: a free one) and answer each request with what `handler` returns.

    `on_closed` is called with the number of each connection that ends.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(handler, on_closed), "127.0.0.1", port, backlog=1024)


@dataclass(slots=True)
class _Incoming:
    """A request while its bytes arrive."""

    target: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)
    header_bytes: int = 0
    body: bytearray = field(default_factory=bytearray)


class _TooLarge(Exception):  # noqa: N818 - carries the status to answer with
    def __init__(self, status: int) -> None:
        self.status = status


class _Connection(asyncio.Protocol):
    """One client. Requests are answered in their order; an int in the queue is a last, refusing status."""

    def __init__(self, handler: Handler, on_closed: Callable[[int], None] | None) -> None:
        self._handler = handler
        self._on_closed = on_closed
        self._number = next(_CONNECTIONS)
        self._connected_at = time.monotonic()
        self._parser = httptools.HttpRequestParser(self)
        self._incoming = _Incoming()
        self._queue: asyncio.Queue[tuple[Request, bool] | int] = asyncio.Queue()
        self._closing = False
        self._transport: asyncio.Transport
        self._sender_port: int
        self._answering: asyncio.Task[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._sender_port = transport.get_extra_info("peername")[1]
        self._answering = asyncio.get_running_loop().create_task(self._answer_all())

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._closing = True
        self._answering.cancel()
        if self._on_closed is not None:
            self._on_closed(self._number)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.NOT_IMPLEMENTED)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.status if isinstance(cause, _TooLarge) else HTTPStatus.BAD_REQUEST)
        if self._queue.qsize() >= _MAX_PIPELINED:
            self._transport.pause_reading()

    def _refuse(self, status: int) -> None:
        if not self._closing:
            self._closing = True
            self._queue.put_nowait(int(status))

    # httptools calls these while it reads.

    def on_message_begin(self) -> None:
        self._incoming = _Incoming()

    def on_url(self, part: bytes) -> None:
        self._count_header(len(part))
        self._incoming.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value) + len(": \r\n"))
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._incoming.headers.get(key)
        self._incoming.headers[key] = text if known is None else f"{known}, {text}"

    def _count_header(self, size: int) -> None:
        self._incoming.header_bytes += size
        if self._incoming.header_bytes > _MAX_HEADER_BYTES:
            raise _TooLarge(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        length = self._incoming.headers.get("content-length", "0")
        if length.isdigit() and int(length) > _MAX_BODY_BYTES:
            raise _TooLarge(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if self._incoming.headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._incoming.body += part
        if len(self._incoming.body) > _MAX_BODY_BYTES:
            raise _TooLarge(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def on_message_complete(self) -> None:
        if self._closing:
            return
        request = Request(
            connection=self._number,
            connected_at=self._connected_at,
            sender_port=self._sender_port,
            method=self._parser.get_method().decode("latin-1"),
            target=self._incoming.target.decode("latin-1"),
            headers=self._incoming.headers,
            body=bytes(self._incoming.body),
        )
        keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._closing = not keep_alive
        self._queue.put_nowait((request, keep_alive))

    async def _answer_all(self) -> None:
        try:
            while await self._answer(await self._queue.get()):
                if self._queue.qsize() < _MAX_PIPELINED // 2:
                    self._transport.resume_reading()
        finally:
            self._transport.close()

    async def _answer(self, waiting: tuple[Request, bool] | int) -> bool:
        """Answer one request; return whether another may follow."""
        if isinstance(waiting, int):
            self._write(Response(waiting), keep_alive=False)
            return False
        request, keep_alive = waiting
        response = await self._handler(request)
        if response is None:
            self._transport.abort()
            return False
        self._write(response, keep_alive=keep_alive)
        return keep_alive

    def _write(self, response: Response, *, keep_alive: bool) -> None:
        head = [f"HTTP/1.1 {response.status} {responses.get(response.status, '')}"]
        if response.status != HTTPStatus.NO_CONTENT:
            head.append(f"content-length: {len(response.body)}")
        if response.body and not any(name == "content-type" for name, _ in response.headers):
            head.append("content-type: text/plain; charset=utf-8")
        head += [f"{name}: {value}" for name, value in response.headers]
        if not keep_alive:
            head.append("connection: close")
        body = b"" if response.status == HTTPStatus.NO_CONTENT else response.body
        self._transport.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)
