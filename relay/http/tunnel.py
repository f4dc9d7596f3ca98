"""A way to an endpoint through the operator's proxy: CONNECT (RFC 9110, 9.3.6) or SOCKS5 (RFC 1928 and 1929).

The proxy is given the endpoint's name and resolves it. A failure is our own ('local', not charged) only where it cannot
come from the endpoint: the proxy is unreachable, speaks something else, or wants another login. All else is a failed
attempt, since a proxy that says 502 or just closes may well be telling of a dead endpoint, and what is never charged
would be tried for ever. Only the texts of 'local' failures name the proxy: no attempt's row holds them.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import ssl
from typing import TYPE_CHECKING

import anyio
from anyio.streams.tls import TLSStream

from outbox.subscriptions.url import bracketed
from relay.http.addresses import literal_address
from relay.http.dial import DialError, share_of_time
from relay.http.response import MAX_HEAD_BYTES, final_head, header, refusal_of_head
from relay.http.tls import reason_of_tls
from relay.model.outcome import OutcomeKind

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from relay.config.egress_proxy import EgressProxy
    from relay.http.dial import Resolve

__all__ = ["BROKEN", "Tunneller", "encrypted", "reason"]

Refusal = tuple["OutcomeKind", str]

BROKEN = (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
"""What a connection raises when it ends or fails."""

_NO_LOGIN, _LOGIN = 0, 2  # methods of RFC 1928
_SOCKS_REPLIES: dict[int, Refusal] = {
    2: (OutcomeKind.BLOCKED_ADDRESS, "the egress proxy does not allow this destination"),
    3: (OutcomeKind.CONNECTION, "the egress proxy has no route to the endpoint's network"),
    4: (OutcomeKind.CONNECTION, "the egress proxy cannot resolve or reach the endpoint"),
    5: (OutcomeKind.REFUSED, "the endpoint refused the egress proxy's connection"),
    6: (OutcomeKind.TIMEOUT, "the egress proxy did not reach the endpoint in time"),
    7: (OutcomeKind.LOCAL, "it does not know CONNECT"),
}


class Tunneller:
    """Opens tunnels through one proxy. `resolve` looks up the proxy's own name, `ssl_context` verifies an https one."""

    def __init__(self, proxy: EgressProxy, resolve: Resolve, ssl_context: ssl.SSLContext) -> None:
        self._proxy, self._resolve, self._ssl_context = proxy, resolve, ssl_context

    async def open(self, host: str, port: int, deadline: float) -> ByteStream:
        """Return a pipe to the endpoint, on which nothing was said yet; raises DialError. `deadline`: `loop.time()`."""
        pipe = await self._reach(deadline)
        try:
            async with asyncio.timeout_at(deadline):
                await (self._ask_socks5 if self._proxy.scheme == "socks5" else self._ask_http)(pipe, host, port)
        except BaseException as error:
            await pipe.aclose()
            if isinstance(error, TimeoutError):
                raise DialError(OutcomeKind.TIMEOUT, "the egress proxy did not reach the endpoint in time") from None
            if isinstance(error, BROKEN):
                raise DialError(
                    OutcomeKind.CONNECTION, "the egress proxy closed the connection instead of an answer"
                ) from None
            raise
        return pipe

    async def _reach(self, deadline: float) -> ByteStream:
        """Return a connection to the proxy, inside TLS for an https one. Every failure is our own."""
        try:
            async with asyncio.timeout_at(deadline):
                pipe = await self._dial(deadline)
                if self._proxy.scheme == "https":
                    pipe = await encrypted(pipe, self._proxy.host, self._ssl_context)
        except TimeoutError:
            raise self._own_fault("no connection in time") from None
        except BROKEN as error:
            raise self._own_fault(reason(error)) from None
        return pipe

    async def _dial(self, deadline: float) -> ByteStream:
        host, port = self._proxy.host, self._proxy.port
        addresses = [host] if literal_address(host) else await self._resolve(host)
        for others in reversed(range(len(addresses))):
            try:
                async with asyncio.timeout_at(share_of_time(deadline, others)):
                    return await anyio.connect_tcp(addresses[-1 - others], port)
            except OSError:  # a timeout is one, too
                if not others:
                    raise
        raise OSError("its name has no address")

    async def _ask_http(self, pipe: ByteStream, host: str, port: int) -> None:
        target = f"{bracketed(host)}:{port}"
        request = f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n"
        if self._proxy.user is not None:
            login = base64.b64encode(f"{self._proxy.user}:{self._proxy.password.reveal()}".encode())
            request += f"proxy-authorization: Basic {login.decode()}\r\n"
        await pipe.send(f"{request}\r\n".encode("ascii"))
        received = bytearray()
        while not (found := final_head(received))[1]:
            received += await pipe.receive()
            if received[:7] != b"HTTP/1."[: len(received)] or len(received) > MAX_HEAD_BYTES:
                raise self._own_fault("its answer to CONNECT is not HTTP")
        head, end = found
        self._judge(refusal_of_connect(head))
        if len(received) > end:
            raise DialError(OutcomeKind.PROTOCOL, "bytes came through the egress proxy before the request was sent")

    async def _ask_socks5(self, pipe: ByteStream, host: str, port: int) -> None:
        methods = [_NO_LOGIN] if self._proxy.user is None else [_NO_LOGIN, _LOGIN]
        await pipe.send(bytes([5, len(methods), *methods]))
        version, method = await _exactly(pipe, 2)
        if version != 5:
            raise self._own_fault("it does not speak SOCKS5")
        if method not in methods:
            raise self._own_fault("it wants another login")
        if method == _LOGIN:
            await self._log_in_socks5(pipe)
        await pipe.send(b"\x05\x01\x00" + _socks_address(host) + port.to_bytes(2, "big"))
        version, reply, _, kind = await _exactly(pipe, 4)
        if version != 5:
            raise self._own_fault("it does not speak SOCKS5")
        if reply:
            self._judge(
                _SOCKS_REPLIES.get(reply, (OutcomeKind.CONNECTION, "the egress proxy could not reach the endpoint"))
            )
        length = {1: 4, 4: 16}.get(kind) or (await _exactly(pipe, 1))[0]
        await _exactly(pipe, length + 2)

    async def _log_in_socks5(self, pipe: ByteStream) -> None:
        user, password = (self._proxy.user or "").encode(), self._proxy.password.reveal().encode()
        await pipe.send(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if (await _exactly(pipe, 2))[1]:
            raise self._own_fault("it refuses the user and password")

    def _judge(self, refusal: Refusal | None) -> None:
        if refusal is None:
            return
        kind, text = refusal
        raise self._own_fault(text) if kind == OutcomeKind.LOCAL else DialError(kind, text)

    def _own_fault(self, text: str) -> DialError:
        return DialError(OutcomeKind.LOCAL, f"egress proxy {self._proxy.redacted}: {text}")


def refusal_of_connect(head: bytes) -> Refusal | None:
    """Return what this answer to CONNECT means when it is not a tunnel; None when it is one."""
    if refusal_of_head(head):
        return OutcomeKind.LOCAL, "its answer to CONNECT is not HTTP"
    status = int(head[9:12])
    if status // 100 == 2:
        return None
    if status in (405, 429, 501) or (status == 407 and header(head, "proxy-authenticate")):
        return OutcomeKind.LOCAL, f"it answers CONNECT with {status}"
    if status in (403, 407):  # Smokescreen says 407, without a challenge, to what its rules forbid
        return OutcomeKind.BLOCKED_ADDRESS, f"the egress proxy does not allow this destination ({status})"
    if status == 504:
        return OutcomeKind.TIMEOUT, "the egress proxy did not reach the endpoint in time (504)"
    return OutcomeKind.CONNECTION, f"the egress proxy could not reach the endpoint ({status})"


async def encrypted(pipe: ByteStream, name: str, context: ssl.SSLContext) -> ByteStream:
    """Return the pipe inside TLS with a server of this name or address, or close it and raise what went wrong."""
    try:
        return await TLSStream.wrap(
            pipe, hostname=name, ssl_context=context, server_side=False, standard_compatible=False
        )
    except BaseException:
        await pipe.aclose()
        raise


def reason(error: BaseException) -> str:
    """Return why a connection or a handshake failed, in words."""
    if isinstance(error, ssl.SSLError):
        return reason_of_tls(error)
    while error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, OSError):
        return "the connection was closed"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


async def _exactly(pipe: ByteStream, length: int) -> bytes:
    """Take so many bytes and no more: what follows belongs to the endpoint."""
    received = b""
    while len(received) < length:
        received += await pipe.receive(length - len(received))
    return received


def _socks_address(host: str) -> bytes:
    address = literal_address(host)
    if address is None:
        return bytes([3, len(host)]) + host.encode("ascii")
    return bytes([1 if isinstance(address, ipaddress.IPv4Address) else 4]) + address.packed
