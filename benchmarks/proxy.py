"""An egress proxy that only passes bytes on: CONNECT or SOCKS5 without a login, in a process of its own.

    python -m benchmarks.proxy http|socks5

It prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys

import uvloop

ESTABLISHED = b"HTTP/1.1 200 OK\r\n\r\n"
NO_LOGIN = b"\x05\x00"
SUCCEEDED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


class Far(asyncio.Protocol):
    """The connection to the endpoint."""

    def __init__(self, near: Near) -> None:
        self.near = near

    def data_received(self, data: bytes) -> None:
        self.near.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.near.transport.close()


class Near(asyncio.Protocol):
    """A client's connection: asks where to until it is connected, and from then on passes bytes on."""

    def __init__(self, scheme: str) -> None:
        self.received = b""
        self.read = self.read_connect if scheme == "http" else self.read_methods
        self.far: asyncio.Transport | None = None
        self.connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        if self.far:
            self.far.close()

    def data_received(self, data: bytes) -> None:
        if self.far:
            self.far.write(data)
        else:
            self.received += data
            self.read()

    def read_connect(self) -> None:
        if self.received.endswith(b"\r\n\r\n"):
            host, _, port = self.received.split(b" ")[1].decode().rpartition(":")
            self.connect(host, int(port), ESTABLISHED)

    def read_methods(self) -> None:
        if len(self.received) >= 2 + self.received[1]:
            self.received, self.read = b"", self.read_address
            self.transport.write(NO_LOGIN)

    def read_address(self) -> None:
        if len(self.received) == 10 and self.received[3] == 1:  # an IPv4 address, which is all that is asked for here
            host, port = ipaddress.ip_address(self.received[4:8]), int.from_bytes(self.received[8:], "big")
            self.connect(str(host), port, SUCCEEDED)

    def connect(self, host: str, port: int, answer: bytes) -> None:
        self.connecting = asyncio.get_running_loop().create_task(self._connect(host, port, answer))

    async def _connect(self, host: str, port: int, answer: bytes) -> None:
        self.far, _ = await asyncio.get_running_loop().create_connection(lambda: Far(self), host, port)
        self.transport.write(answer)


async def serve(scheme: str) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Near(scheme), "127.0.0.1", 0, backlog=4096)
    loop.add_reader(sys.stdin.fileno(), loop.stop)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    try:
        uvloop.run(serve(sys.argv[1]))
    except RuntimeError:  # the loop was stopped because standard input ended
        return


if __name__ == "__main__":
    main()
