"""From a URL to an endpoint in reach: look the name up, judge every address, dial the judged one.

The address that was judged is the address given to connect(): nothing looks the name up a second time. A `Dialler`
gives a way to the endpoint; TLS with the endpoint, and what is said to it, come on top and are the same for each.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Protocol

from outbox.subscriptions.addresses import AddressPolicy, is_private_name, literal_address
from relay.http.resolver import Resolver
from relay.http.tls import reason_of_tls
from relay.model.outcome import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from outbox.subscriptions.url import Url

    Resolve = Callable[[str], Awaitable[Sequence[str]]]

__all__ = ["DialError", "Dialler", "DirectDialler", "Reached", "checked_addresses", "connect", "judge_addresses"]

MAX_SECONDS_AN_ADDRESS = 5.0
"""How long one address may take to accept while there are others to try."""

MAX_ADDRESSES_TRIED = 3
"""How many addresses that can be dialled one attempt tries: of the default timeout of 15 s, each gets its 5 s."""

MAX_ADDRESSES_JUDGED = 64
"""How many addresses of one answer are looked at. A hostile name has 4,000, and each takes 0.1 ms of the loop."""

_NO_SUCH_FAMILY = frozenset([errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EPFNOSUPPORT])
_OWN_FAULTS = _NO_SUCH_FAMILY | {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL}
_WITHOUT_A_WAY = _NO_SUCH_FAMILY | {errno.EADDRNOTAVAIL, errno.ENETUNREACH}
"""What tells of this machine's way to such addresses, mostly to a whole family, and nothing of the endpoint."""


class DialError(Exception):
    """No connection: the class of the failure, its text, and the address that was being dialled."""

    def __init__(self, kind: OutcomeKind, error: str, address: str | None = None) -> None:
        super().__init__(error)
        self.kind = kind
        self.address = address

    @property
    def is_without_a_way(self) -> bool:
        """Whether it is this machine that has no way to such addresses."""
        return isinstance(self.__cause__, OSError) and self.__cause__.errno in _WITHOUT_A_WAY


class Reached(Protocol):
    """An endpoint in reach: a way to it is open, and nothing was said to it yet."""

    @property
    def address(self) -> str | None:
        """Return the address that was dialled; None where a proxy dials it out of sight."""
        ...

    async def open(
        self, protocol: asyncio.Protocol, name: str, context: ssl.SSLContext | None, deadline: float
    ) -> asyncio.Transport:
        """Shake hands with the endpoint where there is a context, then give the protocol the connection.

        `name` is whom the certificate must be for. Raises OSError (ssl.SSLError is one) and DialError; then the way is
        closed.
        """
        ...

    def close(self) -> None:
        """Close a way that was not opened."""
        ...


class Dialler(Protocol):
    """Whatever can reach an endpoint; belongs to one running event loop. Deadlines are `loop.time()`."""

    async def reach(self, url: Url, deadline: float) -> Reached:
        """Return a way to the endpoint; raises DialError."""
        ...

    async def close(self) -> None:
        """Stop looking names up."""
        ...


class DirectDialler:
    """Reaches endpoints from this machine, at addresses that the policy allows.

    `resolve` (a host name to addresses as text, raising OSError) is exchangeable.
    """

    def __init__(self, policy: AddressPolicy, resolve: Resolve | None = None) -> None:
        self._resolver = Resolver()
        self.policy = policy
        self.resolve: Resolve = resolve or self._resolver

    async def reach(self, url: Url, deadline: float) -> Reached:
        """Connect to the first address that accepts; see `Dialler.reach`."""
        check_url(self.policy, url)
        addresses = await checked_addresses(self.policy, self.resolve, url.host, deadline)
        return await connect_to_one(addresses, url.port, deadline)

    async def close(self) -> None:
        """Stop looking names up."""
        await self._resolver.close()


class Connected:
    """A socket connected to the endpoint itself; see `Reached`."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._sock, self.address = sock, address

    async def open(
        self, protocol: asyncio.Protocol, name: str, context: ssl.SSLContext | None, deadline: float
    ) -> asyncio.Transport:
        """Shake hands, and give the protocol the connection; see `Reached.open`."""
        loop = asyncio.get_running_loop()
        if context is None:
            transport, _ = await loop.create_connection(lambda: protocol, sock=self._sock)
        else:
            transport, _ = await loop.create_connection(
                lambda: protocol, sock=self._sock, ssl=context, server_hostname=name,
                ssl_handshake_timeout=seconds_until(deadline),
            )  # fmt: skip
        return transport

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def check_url(policy: AddressPolicy, url: Url) -> None:
    """Raise DialError where the URL alone tells that the policy forbids it."""
    refusal = policy.refusal_of_url(url)
    if refusal is not None:
        raise DialError(OutcomeKind.BLOCKED_ADDRESS, refusal)


async def connect_to_one(addresses: Sequence[str], port: int, deadline: float) -> Connected:
    """Connect to the first address that accepts, of one or more; raises the DialError that tells most.

    At most MAX_ADDRESSES_TRIED are tried. An address to which this machine has no way, as to IPv6 in many a container,
    is passed over and not counted; it is the failure only where there is no other.
    """
    candidates, failures = deque(in_order_of_trial(addresses)), list[DialError]()
    tries = MAX_ADDRESSES_TRIED
    while candidates and tries:
        address, others = candidates.popleft(), min(len(candidates), tries - 1)
        try:
            return await connect(address, port, share_of_time(deadline, others) if others else deadline)
        except DialError as error:
            failures.append(error)
            tries -= not error.is_without_a_way  # which is told at once
    raise min(failures, key=_rank)


def in_order_of_trial(addresses: Sequence[str]) -> Sequence[str]:
    """Return a few addresses as the resolver ordered them; of many, a new order each time, both families in turn."""
    if len(addresses) <= MAX_ADDRESSES_TRIED:
        return addresses
    shuffled = random.sample(addresses, len(addresses))
    first_is_v6 = ":" in addresses[0]  # the resolver's own preference (RFC 6724)
    preferred = [address for address in shuffled if (":" in address) == first_is_v6]
    other = [address for address in shuffled if (":" in address) != first_is_v6]
    pairs = itertools.zip_longest(preferred, other)
    return [address for pair in pairs for address in pair if address is not None]


def _rank(error: DialError) -> int:
    """Rank a failure: first who answered with a refusal, last what only this machine can be blamed for."""
    if error.kind == OutcomeKind.LOCAL:
        return 3
    if error.is_without_a_way:
        return 2
    return 0 if error.kind == OutcomeKind.REFUSED else 1


async def checked_addresses(policy: AddressPolicy, resolve: Resolve, host: str, deadline: float) -> Sequence[str]:
    """Return the addresses of a URL's host, each allowed, none looked up again before it is dialled.

    `deadline` is `loop.time()`. Raises DialError: 'blocked_address' when the policy forbids any address of a public
    name, or every one of a private network's name, whose answers are the operator's own (localhost in two families).
    Of an answer with more than MAX_ADDRESSES_JUDGED, that many are drawn; the others are neither judged nor dialled.
    """
    addresses = [host] if literal_address(host) else await _resolved(resolve, host, deadline)
    if len(addresses) > MAX_ADDRESSES_JUDGED:
        addresses = in_order_of_trial(addresses)[:MAX_ADDRESSES_JUDGED]
    refusals = judge_addresses(policy, addresses)
    allowed = [address for address, refusal in refusals.items() if refusal is None]
    if is_private_name(host) and allowed:
        return allowed
    for address, refusal in refusals.items():
        if refusal is not None:
            raise DialError(OutcomeKind.BLOCKED_ADDRESS, refusal, address)
    return allowed


def judge_addresses(policy: AddressPolicy, addresses: Sequence[str]) -> dict[str, str | None]:
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


async def connect(address: str, port: int, deadline: float) -> Connected:
    """Connect to an address that was judged; raises DialError, whose cause is the OSError."""
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise DialError(OutcomeKind.LOCAL, f"cannot dial {address}: no socket: {error.strerror}", address) from error
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout_at(deadline):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise _refusal_to_connect(error, address) from error
        raise
    return Connected(sock, address)


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
    return min(now + (deadline - now) / (others + 1), now + MAX_SECONDS_AN_ADDRESS)


def seconds_until(deadline: float) -> float:
    """Return how long a handshake may take, which must be more than nothing."""
    return max(deadline - asyncio.get_running_loop().time(), 0.001)


def reason_of_handshake(error: OSError) -> str:
    """Return why no connection came of a way that was open, in words."""
    if isinstance(error, ssl.SSLError):
        return reason_of_tls(error)
    if isinstance(error, ConnectionAbortedError):
        return "the handshake did not finish in time"
    return "the connection was closed"


def _is_own_fault(error: OSError) -> bool:
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_MEMORY
    return error.errno in _OWN_FAULTS
