"""A receiver that plays exactly the bytes a test asks for, on real sockets, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.serving import serving

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def response(status: int, body: bytes = b"", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)


@dataclass
class Exchange:
    """One request as it came, and the connection to play bytes on."""

    head: bytes
    body: bytes
    connection: int
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def socket(self) -> socket.socket:
        return self.writer.get_extra_info("socket")

    async def play(self, *pieces: bytes) -> None:
        """Write pieces so that each arrives by itself."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_closed(self) -> None:
        """Wait until the other side is gone, writing into the void if need be."""
        try:
            while True:
                self.writer.write(b"x" * 65536)
                await self.writer.drain()
        except OSError:
            return


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass
class Receiver:
    """What arrived: connections accepted, connections ended, requests in order."""

    port: int = 0
    accepted: int = 0
    ended: int = 0
    requests: list[Exchange] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.partition(b":")[2]))


@asynccontextmanager
async def receiving(behaviour: Behaviour, **options: object) -> AsyncIterator[Receiver]:
    """Serve `behaviour` for every request, on a port of 127.0.0.1; options go to asyncio.start_server (ssl)."""
    receiver = Receiver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, number = receiver.accepted, 0
        receiver.accepted += 1
        try:
            while True:
                exchange = Exchange(*await _read(reader), connection, number, reader, writer)
                receiver.requests.append(exchange)
                await behaviour(exchange)
                number += 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            receiver.ended += 1

    async with serving(serve, **options) as receiver.port:
        yield receiver
