"""From a URL to an open connection: resolve, check every address, dial the checked one, and TLS on top.

The address that was judged is the address given to connect(): nothing looks the name up a second time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import TYPE_CHECKING, Any

from relay.http.addresses import AddressPolicy, is_private_name, literal_address
from relay.http.connection import Connection
from relay.http.tls import reason_of_tls
from relay.model.outcome import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from outbox.subscriptions.url import Url
    from relay.http.tls import ClientTLS

    Resolve = Callable[[str], Awaitable[Sequence[str]]]

__all__ = ["DialError", "Dialler", "checked_addresses", "connected", "judged"]

MAX_SECONDS_AN_ADDRESS = 5.0
"""How long one address may take to accept while there are others to try."""

_OWN_FAULTS = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL])


class DialError(Exception):
    """No connection: the class of the failure, its text, and the address that was being dialled."""

    def __init__(self, kind: OutcomeKind, error: str, address: str | None = None) -> None:
        super().__init__(error)
        self.kind = kind
        self.address = address


class Dialler:
    """Opens connections for one sender; the deadlines are `loop.time()`."""

    def __init__(
        self, policy: AddressPolicy, resolve: Resolve, ssl_context: ssl.SSLContext, excerpt_bytes: int
    ) -> None:
        self._policy, self._resolve, self._ssl_context = policy, resolve, ssl_context
        self._excerpt_bytes = excerpt_bytes

    async def dial(
        self, url: Url, tls: ClientTLS | None, deadline: float, on_end: Callable[[Connection], None]
    ) -> Connection:
        """Return an open connection to the first address that accepts; raises DialError."""
        addresses = await checked_addresses(self._policy, self._resolve, url.host, deadline)
        context = await tls_context(url, tls, self._ssl_context)
        for position, address in enumerate(addresses, 1):
            others = len(addresses) - position
            try:
                sock = await connected(address, url.port, share_of_time(deadline, others))
                break
            except DialError as error:
                if not others or error.kind == OutcomeKind.LOCAL:
                    raise
        return await self._opened(sock, address, (url.host, context), deadline, on_end)

    async def _opened(
        self,
        sock: socket.socket,
        address: str,
        tls: tuple[str, ssl.SSLContext | None],
        deadline: float,
        on_end: Callable[[Connection], None],
    ) -> Connection:
        loop, (name, context) = asyncio.get_running_loop(), tls
        connection = Connection(sock, address, self._excerpt_bytes, on_end)
        encryption: dict[str, Any] = {}
        if context is not None:
            seconds = max(deadline - loop.time(), 0.001)
            encryption = {"ssl": context, "server_hostname": name, "ssl_handshake_timeout": seconds}
        try:
            await loop.create_connection(lambda: connection, sock=sock, **encryption)
        except OSError as error:  # with TLS: ssl.SSLError, a reset, and the handshake's own timeout are all OSErrors
            kind: OutcomeKind = OutcomeKind.TLS if encryption else OutcomeKind.CONNECTION
            raise DialError(kind, f"{kind} failed: {_reason(error)}", address) from None
        return connection


async def checked_addresses(policy: AddressPolicy, resolve: Resolve, host: str, deadline: float) -> Sequence[str]:
    """Return the addresses of a URL's host, each allowed, none looked up again before it is dialled.

    `deadline` is `loop.time()`. Raises DialError: 'blocked_address' when the policy forbids any address of a public
    name, or every one of a private network's name, whose answers are the operator's own (localhost in two families).
    """
    addresses = [host] if literal_address(host) else await _resolved(resolve, host, deadline)
    refusals = judged(policy, addresses)
    allowed = [address for address, refusal in refusals.items() if refusal is None]
    if is_private_name(host) and allowed:
        return allowed
    for address, refusal in refusals.items():
        if refusal is not None:
            raise DialError(OutcomeKind.BLOCKED_ADDRESS, refusal, address)
    return allowed


def judged(policy: AddressPolicy, addresses: Sequence[str]) -> dict[str, str | None]:
    """Return for each address why it may not be dialled, None when it may."""
    return {address: policy.refusal(address) or _refusal_of_own(policy, address) for address in addresses}


def _refusal_of_own(policy: AddressPolicy, address: str) -> str | None:
    """Return why an address of this very machine may not be dialled: no firewall stands before what listens here."""
    if policy.adds(address) or not _is_own(address):
        return None
    return f"{address} is this machine's own address; add it to allow_networks to permit it"


def _is_own(address: str) -> bool:
    # To its own address, and to no other, a machine speaks from that address. Connecting a datagram socket asks the
    # routing table and sends nothing.
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((address, 9))
            return bool(asking.getsockname()[0] == address)
    except OSError:  # no route, no such family, no descriptor: dialling will tell
        return False


async def _resolved(resolve: Resolve, host: str, deadline: float) -> Sequence[str]:
    try:
        async with asyncio.timeout_at(deadline):
            addresses = await resolve(host)
    except TimeoutError:
        raise DialError(OutcomeKind.DNS, "the host name was not resolved in time") from None
    except OSError as error:
        kind: OutcomeKind = OutcomeKind.LOCAL if _is_own_fault(error) else OutcomeKind.DNS
        raise DialError(kind, f"the host name cannot be resolved: {error.strerror or error}") from None
    if not addresses:
        raise DialError(OutcomeKind.DNS, "the host name has no address")
    return addresses


async def tls_context(url: Url, tls: ClientTLS | None, default: ssl.SSLContext) -> ssl.SSLContext | None:
    """Return the context to connect with, None for plain http. Raises DialError ('local')."""
    if url.scheme != "https":
        return None
    try:
        return default if tls is None else await tls.context()
    except OSError as error:
        raise DialError(OutcomeKind.LOCAL, f"cannot prepare TLS: {error.strerror or type(error).__name__}") from None


async def connected(address: str, port: int, deadline: float) -> socket.socket:
    """Return a socket connected to an address that the policy allowed; raises DialError."""
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise DialError(OutcomeKind.LOCAL, f"no socket: {error.strerror}", address) from None
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout_at(deadline):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise _refusal_to_connect(error, address) from None
        raise
    return sock


def _refusal_to_connect(error: OSError, address: str) -> DialError:
    if _is_own_fault(error):
        return DialError(OutcomeKind.LOCAL, f"cannot dial: {error.strerror}", address)
    if isinstance(error, TimeoutError):
        return DialError(OutcomeKind.TIMEOUT, "no connection in time", address)
    if isinstance(error, ConnectionRefusedError):
        return DialError(OutcomeKind.REFUSED, "connection refused", address)
    return DialError(OutcomeKind.CONNECTION, f"cannot connect: {error.strerror or type(error).__name__}", address)


def share_of_time(deadline: float, others: int) -> float:
    """Return until when one address may be tried while so many others wait; both are `loop.time()`."""
    now = asyncio.get_running_loop().time()
    return min(now + (deadline - now) / (others + 1), now + MAX_SECONDS_AN_ADDRESS) if others else deadline


def _is_own_fault(error: OSError) -> bool:
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_MEMORY
    return error.errno in _OWN_FAULTS


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return reason_of_tls(error)
    if isinstance(error, ConnectionAbortedError):
        return "the handshake did not finish in time"
    return "the connection was closed"
