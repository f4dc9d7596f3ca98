"""The receivers' HTTP server answers whatever a client may send, in order and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from relay.local.receiver.server import Request, Response, serve

Exchange = Callable[[bytes], Awaitable[bytes]]


async def echo(request: Request) -> Response | None:
    if request.target == "/cut":
        return None
    return Response(200, f"{request.method} {request.target} ".encode() + request.body)


def exchange(*parts: bytes) -> bytes:
    """Send the parts over one connection, and return all that comes back until it closes."""

    async def run() -> bytes:
        server = await serve(echo, 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        answer = await reader.read()
        writer.close()
        server.close()
        return answer

    return asyncio.run(run())


def bodies(answer: bytes) -> list[bytes]:
    """The bodies of the answers, each with its status."""
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append(head.split()[1] + b" " + rest[:length])
        answer = rest[length:]
    return found


CLOSE = b"POST /last HTTP/1.1\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


def test_keeps_the_connection_until_the_client_closes_it() -> None:
    first = b"POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\none"
    assert bodies(exchange(first, CLOSE)) == [b"200 POST /a one", b"200 POST /last ok"]


def test_answers_pipelined_requests_in_their_order() -> None:
    requests = b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(100))
    expected = [b"200 GET /%d " % number for number in range(100)]
    assert bodies(exchange(requests + CLOSE)) == [*expected, b"200 POST /last ok"]


def test_reads_a_body_in_chunks_split_anywhere() -> None:
    head = b"POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    whole = head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    assert bodies(exchange(*(whole[place : place + 1] for place in range(len(whole))))) == [b"200 POST /c abcde"]


def test_cuts_the_connection_when_the_handler_wants_it() -> None:
    assert exchange(b"GET /cut HTTP/1.1\r\n\r\n") == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", b"431"),
    ],
    ids=["rubbish", "two lengths", "huge body", "huge header", "many headers"],
)
def test_refuses_what_it_cannot_or_will_not_read(request_bytes: bytes, status: bytes) -> None:
    assert exchange(request_bytes).split()[1] == status


def test_what_came_before_rubbish_is_still_answered() -> None:
    assert bodies(exchange(b"GET /a HTTP/1.1\r\n\r\nrubbish\r\n\r\n")) == [b"200 GET /a ", b"400 "]


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    head = b"POST /e HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 1\r\n\r\n"
    assert exchange(head, b"x").startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_the_handler_is_cancelled_when_the_client_hangs_up() -> None:
    async def run() -> None:
        cancelled = asyncio.Event()
        begun = asyncio.Event()

        async def wait(request: Request) -> Response:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return Response(200)

        server = await serve(wait, 0)
        _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await begun.wait()
        writer.close()
        async with asyncio.timeout(10):
            await cancelled.wait()
        server.close()

    asyncio.run(run())
