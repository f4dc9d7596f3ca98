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

from outbox.subscriptions.addresses import literal_address
from outbox.subscriptions.url import bracketed
from relay.http.dial import DialError, check_url, connect_to_one
from relay.http.proxy_talk import ProxyTalk
from relay.http.resolver import Resolver
from relay.http.response import MAX_HEAD_BYTES, final_head, has_many_headers, header, refusal_of_head
from relay.http.tls import default_ssl_context, reason_of_tls
from relay.http.tls_layer import start_tls
from relay.model.outcome import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outbox.subscriptions.addresses import AddressPolicy
    from outbox.subscriptions.url import Url
    from relay.config.egress_proxy import EgressProxy
    from relay.http.dial import Reached, Resolve

__all__ = ["TunnelDialler"]

Refusal = tuple["OutcomeKind", str]

_NO_LOGIN, _LOGIN = 0, 2  # methods of RFC 1928
_SOCKS_REPLIES: dict[int, Refusal] = {
    2: (OutcomeKind.BLOCKED_ADDRESS, "the egress proxy does not allow this destination"),
    3: (OutcomeKind.CONNECTION, "the egress proxy has no route to the endpoint's network"),
    4: (OutcomeKind.CONNECTION, "the egress proxy cannot resolve or reach the endpoint"),
    5: (OutcomeKind.REFUSED, "the endpoint refused the egress proxy's connection"),
    6: (OutcomeKind.TIMEOUT, "the egress proxy did not reach the endpoint in time"),
    7: (OutcomeKind.LOCAL, "it does not know CONNECT"),
}


class TunnelDialler:
    """Reaches endpoints through one egress proxy, which resolves their names and must refuse private addresses itself.

    Of the address policy, what the URL alone tells is applied (scheme, port, literal address, private name). A tunnel
    has no address. Plain http goes through CONNECT, too, so that no proxy can answer for the receiver. Bytes that come
    before anything was said to the endpoint end the tunnel. `resolve` looks up the proxy's own name, `ssl_context`
    verifies an https proxy. Neither proxies nor .netrc of the environment are read.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        proxy: EgressProxy,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._resolver = Resolver()
        self.policy = policy
        self._proxy, self._resolve = proxy, resolve or self._resolver
        self._ssl_context = ssl_context or default_ssl_context()

    async def reach(self, url: Url, deadline: float) -> Reached:
        """Open a tunnel to the endpoint; see `Dialler.reach`."""
        check_url(self.policy, url)
        talk = await self._connect_to_proxy(deadline)
        try:
            async with asyncio.timeout_at(deadline):
                await (self._ask_socks5 if self._proxy.scheme == "socks5" else self._ask_http)(talk, url.host, url.port)
                talk.check_silence()
        except BaseException as error:
            talk.close()
            if isinstance(error, TimeoutError):
                raise DialError(OutcomeKind.TIMEOUT, "the egress proxy did not reach the endpoint in time") from None
            if isinstance(error, OSError):
                raise DialError(
                    OutcomeKind.CONNECTION, "the egress proxy closed the connection instead of an answer"
                ) from None
            raise
        return Tunnel(talk)

    async def close(self) -> None:
        """Stop looking the proxy's name up."""
        await self._resolver.close()

    async def _connect_to_proxy(self, deadline: float) -> ProxyTalk:
        """Return a connection to the proxy, inside TLS for an https one. Every failure is our own."""
        proxy, talk = self._proxy, ProxyTalk()
        try:
            reached = await connect_to_one(await self._addresses(deadline), proxy.port, deadline)
            await reached.open(talk, proxy.host, None, deadline)
            if proxy.scheme == "https":
                await self._start_tls_with_proxy(talk, deadline)
        except DialError as error:
            raise self._own_fault(_reason(error.__cause__)) from None
        except OSError as error:
            raise self._own_fault(_reason(error)) from None
        return talk

    async def _addresses(self, deadline: float) -> Sequence[str]:
        host = self._proxy.host
        async with asyncio.timeout_at(deadline):
            addresses = [host] if literal_address(host) else await self._resolve(host)
        if not addresses:
            raise OSError("its name has no address")
        return addresses

    async def _start_tls_with_proxy(self, talk: ProxyTalk, deadline: float) -> None:
        below = talk.transport
        try:
            await start_tls(below, talk, self._proxy.host, self._ssl_context, deadline)
        except BaseException:
            below.abort()
            raise

    async def _ask_http(self, talk: ProxyTalk, host: str, port: int) -> None:
        target = f"{bracketed(host)}:{port}"
        request = f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n"
        if self._proxy.user is not None:
            login = base64.b64encode(f"{self._proxy.user}:{self._proxy.password.reveal()}".encode())
            request += f"proxy-authorization: Basic {login.decode()}\r\n"
        talk.write(f"{request}\r\n".encode("ascii"))
        head = await self._take_head(talk)
        self._judge(refusal_of_connect(head))

    async def _take_head(self, talk: ProxyTalk) -> bytes:
        while not (found := final_head(talk.received))[1]:
            await talk.listen()
            if talk.received[:7] != b"HTTP/1."[: len(talk.received)] or len(talk.received) > MAX_HEAD_BYTES:
                raise self._own_fault("its answer to CONNECT is not HTTP")
        head, end = found
        del talk.received[:end]
        return head

    async def _ask_socks5(self, talk: ProxyTalk, host: str, port: int) -> None:
        methods = [_NO_LOGIN] if self._proxy.user is None else [_NO_LOGIN, _LOGIN]
        talk.write(bytes([5, len(methods), *methods]))
        version, method = await talk.take(2)
        if version != 5:
            raise self._own_fault("it does not speak SOCKS5")
        if method not in methods:
            raise self._own_fault("it wants another login")
        if method == _LOGIN:
            await self._log_in_socks5(talk)
        talk.write(b"\x05\x01\x00" + _socks_address(host) + port.to_bytes(2, "big"))
        version, reply, _, kind = await talk.take(4)
        if version != 5:
            raise self._own_fault("it does not speak SOCKS5")
        if reply:
            self._judge(
                _SOCKS_REPLIES.get(reply, (OutcomeKind.CONNECTION, "the egress proxy could not reach the endpoint"))
            )
        length = {1: 4, 4: 16}.get(kind) or (await talk.take(1))[0]
        await talk.take(length + 2)

    async def _log_in_socks5(self, talk: ProxyTalk) -> None:
        user, password = (self._proxy.user or "").encode(), self._proxy.password.reveal().encode()
        talk.write(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if (await talk.take(2))[1]:
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
    if refusal_of_head(head) or has_many_headers(head):
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


class Tunnel:
    """A tunnel that stands; see `Reached`."""

    address = None

    def __init__(self, talk: ProxyTalk) -> None:
        self._talk = talk

    async def open(
        self, protocol: asyncio.Protocol, name: str, context: ssl.SSLContext | None, deadline: float
    ) -> asyncio.Transport:
        """Shake hands through the tunnel, and give the protocol the connection; see `Reached.open`."""
        transport = self._talk.transport
        try:
            self._talk.check_silence()
            if context is not None:
                return await start_tls(transport, protocol, name, context, deadline)
        except BaseException:
            self.close()
            raise
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return transport

    def close(self) -> None:
        """Close the tunnel."""
        self._talk.close()


def _reason(error: BaseException | None) -> str:
    """Return why the proxy cannot be reached, in words."""
    if isinstance(error, ssl.SSLError):
        return reason_of_tls(error)
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return "no connection in time"
    if not isinstance(error, OSError):
        return "the connection was closed"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


def _socks_address(host: str) -> bytes:
    address = literal_address(host)
    if address is None:
        return bytes([3, len(host)]) + host.encode("ascii")
    return bytes([1 if isinstance(address, ipaddress.IPv4Address) else 4]) + address.packed
