"""The one way out of the process: a signed body to a subscription's URL, and what the network said.

`send()` never raises for what a network or a receiver can do; it returns an Outcome.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from outbox.subscriptions.url import Url, parse_url
from relay.http.dial import DialError, Dialler
from relay.http.pool import Key, Pool, Pools
from relay.http.reader import Answer, Lost
from relay.http.resolver import Resolver
from relay.http.response import kind_of_status, retry_after_seconds
from relay.http.tls import default_ssl_context
from relay.model.outcome import Outcome, OutcomeKind, milliseconds_since

if TYPE_CHECKING:
    import ssl

    from relay.http.addresses import AddressPolicy
    from relay.http.connection import Connection
    from relay.http.dial import Resolve
    from relay.http.tls import ClientTLS

__all__ = ["DirectSender", "Endpoint", "Sender", "fixed_lines", "outcome_of", "unsent"]

MAX_HEADERS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL made ready for sending: parsed once, with the first lines of every request to it.

    `tls` is the subscription's own side of TLS, None where there is nothing but the sender's.
    """

    url: Url
    key: Key
    prefix: bytes
    tls: ClientTLS | None = None

    @classmethod
    def of(cls, url_text: str, tls: ClientTLS | None = None) -> Endpoint:
        """Parse a URL; raises SubscriptionError as `outbox.subscriptions.url.parse_url` does."""
        url = parse_url(url_text)
        prefix = f"POST {url.target} HTTP/1.1\r\nhost: {url.authority}\r\n"
        digest = b"" if tls is None else tls.digest
        return cls(url, (url.scheme, url.host, url.port, digest), prefix.encode("ascii"), tls)


class Sender(Protocol):
    """Anything that can carry an attempt out of the process."""

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        """POST the body; never raises for an expected failure.

        `headers` are whole lines, each with its CRLF: content-type and all that is particular to this request.
        """
        ...

    async def close(self) -> None:
        """Close what rests. No send may be under way."""
        ...


class DirectSender:
    """Sends over connections of its own to addresses that the policy allows; belongs to one running event loop.

    `timeout_seconds` of a send is one total over waiting for a place, DNS, connect, TLS, headers and body. A connection
    that was kept open and dies without a byte of an answer is replaced once, at once: the receiver had closed it.
    Redirects are not followed, bodies are neither decompressed nor read beyond `excerpt_bytes`, proxies of the
    environment are not used. `resolve` (a host name to addresses as text, raising OSError) is exchangeable.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        user_agent: str,
        connections_per_endpoint: int = 64,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        excerpt_bytes: int = 16_384,
    ) -> None:
        self._policy = policy
        self._pools = Pools(connections_per_endpoint)
        self._resolver = Resolver()
        self._dialler = Dialler(policy, resolve or self._resolver, ssl_context or default_ssl_context(), excerpt_bytes)
        self._fixed = fixed_lines(user_agent)

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        """POST the body; see `Sender.send`."""
        started = time.monotonic()  # the loop's own clock; asking for the loop costs a system call
        pool = self._pools.of(endpoint.key)
        if not await pool.enter(started + timeout_seconds):
            return unsent(OutcomeKind.LOCAL, "no free connection to this endpoint in time", started)
        try:
            request = b"".join((endpoint.prefix, self._fixed, headers, b"content-length: %d\r\n\r\n" % len(body), body))
            return await self._attempt(pool, endpoint, request, started, started + timeout_seconds)
        finally:
            pool.leave()
            self._pools.tidy(pool)

    async def close(self) -> None:
        """Close what rests; see `Sender.close`."""
        self._pools.close_resting()
        await self._resolver.close()
        await asyncio.sleep(0)  # lets the closed transports say so

    async def _attempt(
        self, pool: Pool, endpoint: Endpoint, request: bytes, started: float, deadline: float
    ) -> Outcome:
        rested = self._pools.take(pool)
        if rested is not None:
            result = await self._exchange(pool, rested, request, deadline)
            if not _was_closed_before(result):
                return outcome_of(result, rested.address, started)
        refusal = self._policy.refusal_of_url(endpoint.url)
        if refusal is not None:
            return unsent(OutcomeKind.BLOCKED_ADDRESS, refusal, started)
        try:
            fresh = await self._dialler.dial(endpoint.url, endpoint.tls, deadline, self._pools.forget)
        except DialError as error:
            outcome = unsent(error.kind, str(error), started, error.address)
            return outcome._replace(sent=rested is not None)
        return outcome_of(await self._exchange(pool, fresh, request, deadline), fresh.address, started)

    async def _exchange(self, pool: Pool, connection: Connection, request: bytes, deadline: float) -> Answer | Lost:
        try:
            result = await connection.exchange(request, deadline)
        except BaseException:  # cancelled: the answer to this request must not meet the next one
            connection.close()
            raise
        if connection.is_open():
            self._pools.put(pool, connection)
        return result


def fixed_lines(user_agent: str) -> bytes:
    """Return the header lines that every request has besides host, content-length and its own."""
    return f"user-agent: {user_agent}\r\naccept-encoding: identity\r\n".encode("ascii")


def _was_closed_before(result: Answer | Lost) -> bool:
    """Tell whether a reused connection ended as if the receiver had closed it before the request came."""
    return isinstance(result, Lost) and result.kind in (OutcomeKind.CONNECTION, OutcomeKind.TLS) and not result.received


def outcome_of(result: Answer | Lost, address: str | None, started: float) -> Outcome:
    """Return the outcome of a request that was sent; `started` is `time.monotonic()`."""
    milliseconds = milliseconds_since(started)
    if isinstance(result, Lost):
        return Outcome(result.kind, None, milliseconds, result.error, address, excerpt=result.received)
    return Outcome(
        kind_of_status(result.status),
        result.status,
        milliseconds,
        address=address,
        headers=result.head[:MAX_HEADERS_KEPT].decode("latin-1"),
        excerpt=result.body,
        retry_after_seconds=retry_after_seconds(result.status, result.head),
    )


def unsent(kind: OutcomeKind, error: str, started: float, address: str | None = None) -> Outcome:
    """Return the outcome of a request of which no byte can have reached the receiver."""
    return Outcome(kind, None, milliseconds_since(started), error, address, sent=False)
