"""Egress proxies on 127.0.0.1: CONNECT (inside TLS, too) and SOCKS5, with names of their own and misbehaviour."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from relay.config.egress_proxy import EgressProxy, parse_egress_proxy
from tests.support.serving import serving


@dataclass
class Asked:
    """One tunnel as it was asked for: host and port, the bytes that asked, and the login that came along."""

    host: str
    port: int
    said: bytes
    login: str | None
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


Misbehaviour = Callable[[Asked], Awaitable[None]]
"""What to do instead of opening the tunnel; the connection is closed after it."""


@dataclass
class Proxy:
    """What came in: connections accepted and ended, tunnels asked for; `hosts` are the names that it resolves."""

    scheme: str
    hosts: dict[str, str] = field(default_factory=dict)
    port: int = 0
    accepted: int = 0
    ended: int = 0
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def address(self) -> EgressProxy:
        return parse_egress_proxy(self.url)


def says(answer: bytes) -> Misbehaviour:
    """Answer so, and close."""

    async def behaviour(asked: Asked) -> None:
        asked.writer.write(answer)
        await asked.writer.drain()
        asked.writer.close()
        await asked.writer.wait_closed()

    return behaviour


async def hangs(asked: Asked) -> None:
    """Say nothing until the other side has gone."""
    await asked.reader.read()


@asynccontextmanager
async def proxying(
    scheme: str,
    *,
    hosts: dict[str, str] | None = None,
    login: str | None = None,
    instead: Misbehaviour | None = None,
    dies_after: int | None = None,
    **options: object,
) -> AsyncIterator[Proxy]:
    """Serve as a proxy of scheme http, https or socks5.

    `hosts` are the names it resolves, to an IPv4 address, with a port if it is another one than was asked for; `login`
    (user:password) is what it wants; `dies_after` so many bytes from the endpoint it cuts the tunnel; options go to
    asyncio.start_server (ssl).
    """
    proxy = Proxy(scheme, dict(hosts or {}))
    ask = _ask_socks5 if scheme == "socks5" else _ask_connect

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.accepted += 1
        try:
            asked = await ask(reader, writer, login)
            proxy.asked.append(asked)
            if instead is not None:
                await instead(asked)
            else:
                await _tunnel(asked, proxy.hosts, ACCEPTED[scheme == "socks5"], dies_after)
        except (OSError, asyncio.IncompleteReadError, RefusedError):
            pass
        finally:
            writer.transport.abort()
            proxy.ended += 1

    async with serving(serve, **options) as proxy.port:
        yield proxy


class RefusedError(Exception):
    pass


ACCEPTED = {False: b"HTTP/1.1 200 Connection established\r\n\r\n", True: b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"}
FAILED = {False: b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", True: b"\x05\x05\x00\x01\0\0\0\0\0\0"}
WANTS_LOGIN = b'HTTP/1.1 407 X\r\nproxy-authenticate: Basic realm="x"\r\ncontent-length: 0\r\n\r\n'


async def _ask_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, login: str | None) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    method, target, _ = lines[0].split()
    assert method == "CONNECT", head
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    given = headers.get("proxy-authorization")
    came = None if given is None else base64.b64decode(given.removeprefix("Basic ")).decode()
    if came != login:
        await says(WANTS_LOGIN)(Asked("", 0, head, came, reader, writer))
        raise RefusedError
    host, _, port = target.rpartition(":")
    return Asked(host.strip("[]"), int(port), head, came, reader, writer)


async def _ask_socks5(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, login: str | None) -> Asked:
    _, count = await reader.readexactly(2)
    methods = await reader.readexactly(count)
    method = 0 if login is None else 2
    if method not in methods:
        writer.write(b"\x05\xff")
        raise RefusedError
    writer.write(bytes([5, method]))
    came = None
    if method:
        user = await reader.readexactly((await reader.readexactly(2))[1])
        password = await reader.readexactly((await reader.readexactly(1))[0])
        came = f"{user.decode()}:{password.decode()}"
        writer.write(bytes([1, came != login]))
        if came != login:
            raise RefusedError
    head = await reader.readexactly(4)
    raw = await reader.readexactly({1: 4, 4: 16}.get(head[3]) or (await reader.readexactly(1))[0])
    host = raw.decode() if head[3] == 3 else str(ipaddress.ip_address(raw))
    return Asked(host, int.from_bytes(await reader.readexactly(2), "big"), head + raw, came, reader, writer)


async def _tunnel(asked: Asked, hosts: dict[str, str], accepted: bytes, dies_after: int | None) -> None:
    try:
        host, _, port = hosts.get(asked.host, "").partition(":")
        reader, writer = await asyncio.open_connection(host or asked.host, int(port or asked.port))
    except OSError:
        await says(FAILED[accepted[0] == 5])(asked)
        return
    for piece in (accepted[:1], accepted[1:]):  # in two pieces: a stream has no messages
        asked.writer.write(piece)
        await asyncio.sleep(0)
    try:
        await asyncio.gather(_pump(asked.reader, writer), _pump(reader, asked.writer, dies_after))
    finally:
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None = None) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data if most is None else data[:most])
            await writer.drain()
            if most is not None and (most := most - len(data)) <= 0:
                break
    writer.transport.abort() if reader.exception() or most is not None else writer.close()
