"""The one way out of the process: a signed body to a subscription's URL, and what the network said.

`send()` never raises for what a network or a receiver can do; it returns an Outcome.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from outbox.subscriptions.url import Url, parse_url
from relay.http.begun import Begun, Request
from relay.http.conclusion import is_success, needs_new_connection, outcome_of, unsent
from relay.http.connection import Connection
from relay.http.dial import DialError, reason_of_handshake
from relay.http.pool import MAX_RESTING, Key, Pool, Pools
from relay.http.tls import default_ssl_context
from relay.model.outcome import Outcome, OutcomeKind

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable

    from relay.http.dial import Dialler
    from relay.http.reader import Answer, Lost
    from relay.http.tls import ClientTLS

__all__ = ["Begun", "Endpoint", "HttpSender", "Sender", "fixed_lines"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL made ready for sending: parsed once, with the first lines of every request to it.

    `tls` is the subscription's own side of TLS, None where there is nothing but the sender's. `for_retry`: what is sent
    has failed before, so no connection of before will do. `fixed` are lines that take the place of the sender's
    `fixed_lines`, None where there is no User-Agent of its own.
    """

    url: Url
    key: Key
    prefix: bytes
    tls: ClientTLS | None = None
    for_retry: bool = False
    fixed: bytes | None = None

    @classmethod
    def of(
        cls, url_text: str, tls: ClientTLS | None = None, owner: bytes = b"", user_agent: str | None = None
    ) -> Endpoint:
        """Parse a URL; raises SubscriptionError as `outbox.subscriptions.url.parse_url` does.

        `owner` is the id of the subscription that sends there; endpoints of two owners never share a connection.
        """
        url = parse_url(url_text)
        prefix = f"POST {url.target} HTTP/1.1\r\nhost: {url.authority}\r\n"
        digest = b"" if tls is None else tls.digest
        key = Key(url.scheme, url.host, url.port, digest, owner)
        fixed = None if user_agent is None else fixed_lines(user_agent)
        return cls(url, key, prefix.encode("ascii"), tls, fixed=fixed)


class Sender(Protocol):
    """Anything that can carry an attempt out of the process."""

    def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Awaitable[Outcome]:
        """POST the body; awaiting it never raises for an expected failure.

        `headers` are whole lines, each with its CRLF: content-type and all that is particular to this request.
        """
        ...

    async def close(self) -> None:
        """Close what rests. No send may be under way."""
        ...


class HttpSender:
    """Sends over connections that it keeps and uses again, to wherever its dialler reaches; belongs to one event loop.

    A connection is shared by the requests of one subscription only, is kept after a 2xx only, and for about a minute:
    the next one is dialled to where the name points then. `timeout_seconds` of a send is one total over waiting for a
    place, DNS, connect, TLS, headers and body. A connection that was kept open and dies without a byte of an answer is
    replaced once, at once: the receiver had closed it. A 410 that came on a kept one is asked for again on a new one.
    Redirects are not followed, bodies are neither decompressed nor read beyond `excerpt_bytes`, proxies of the
    environment are not used. `ssl_context` is for endpoints that have no TLS of their own.
    """

    def __init__(
        self,
        dialler: Dialler,
        *,
        user_agent: str,
        connections_per_endpoint: int = 64,
        max_resting: int = MAX_RESTING,
        ssl_context: ssl.SSLContext | None = None,
        excerpt_bytes: int = 16_384,
    ) -> None:
        self._dialler = dialler
        self._pools = Pools(connections_per_endpoint, max_resting)
        self._ssl_context = ssl_context or default_ssl_context()
        self._excerpt_bytes = excerpt_bytes
        self._fixed = fixed_lines(user_agent)

    @property
    def endpoints(self) -> int:
        """Return how many endpoints have a send under way or a connection that rests."""
        return self._pools.endpoints

    @property
    def resting(self) -> int:
        """Return how many connections rest."""
        return self._pools.resting

    @property
    def irregular(self) -> int:
        """Return how many connections were closed because bytes came that nobody had asked for."""
        return self._pools.irregularities.count

    def send(
        self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float
    ) -> Begun | Awaitable[Outcome]:
        """POST the body; see `Sender.send`. Where a connection rests, the request is on the wire when this returns."""
        started = time.monotonic()  # the loop's own clock; asking for the loop costs a system call
        fixed = endpoint.fixed or self._fixed
        data = b"".join((endpoint.prefix, fixed, headers, b"content-length: %d\r\n\r\n" % len(body), body))
        request = Request(endpoint, data, started, started + timeout_seconds)
        pool = self._pools.of(endpoint.key)
        if not endpoint.for_retry and pool.enter_at_once():
            if (rested := self._pools.take(pool)) is not None:
                return Begun(self._pools, pool, rested, request, self._send_anew)
            self._pools.leave(pool)
        return self._send(request)

    async def close(self) -> None:
        """Close what rests; see `Sender.close`."""
        self._pools.close_resting()
        await self._dialler.close()
        await asyncio.sleep(0)  # lets the closed transports say so

    async def _send(self, request: Request) -> Outcome:
        pool = self._pools.of(request.endpoint.key)
        if not (pool.enter_at_once() or await pool.enter(request.deadline)):
            return unsent(OutcomeKind.LOCAL, "no free connection to this endpoint in time", request)
        try:
            return await self._attempt(pool, request)
        finally:
            self._pools.leave(pool)

    async def _attempt(self, pool: Pool, request: Request) -> Outcome:
        rested = self._pools.take_for_retry(pool) if request.endpoint.for_retry else self._pools.take(pool)
        if rested is None:
            return await self._send_anew(pool, request, sent=False)
        result = await self._exchange(pool, rested, request)
        if needs_new_connection(result):
            return await self._send_anew(pool, request)
        return outcome_of(result, rested.address, request)

    async def _send_anew(self, pool: Pool, request: Request, *, sent: bool = True) -> Outcome:
        """Send over a new connection; `sent`: whether a kept one had taken the request before."""
        try:
            fresh = await self._dial(request.endpoint, request.deadline)
        except DialError as error:
            pool.failed_at = time.monotonic()
            return unsent(error.kind, str(error), request, error.address)._replace(sent=sent)
        return outcome_of(await self._exchange(pool, fresh, request), fresh.address, request)

    async def _dial(self, endpoint: Endpoint, deadline: float) -> Connection:
        """Return an open connection to the endpoint; raises DialError."""
        url, dialled_at = endpoint.url, time.monotonic()
        context = await self._context(endpoint) if url.scheme == "https" else None
        reached = await self._dialler.reach(url, deadline)
        on_end = partial(self._pools.note_end, endpoint.key)
        connection = Connection(reached.address, self._excerpt_bytes, on_end, dialled_at, for_retry=endpoint.for_retry)
        try:
            await reached.open(connection, url.host, context, deadline)
        except OSError as error:
            kind = OutcomeKind.CONNECTION if context is None else OutcomeKind.TLS
            raise DialError(kind, f"{kind} failed: {reason_of_handshake(error)}", reached.address) from None
        return connection

    async def _context(self, endpoint: Endpoint) -> ssl.SSLContext:
        try:
            return self._ssl_context if endpoint.tls is None else await endpoint.tls.context()
        except OSError as error:
            raise DialError(
                OutcomeKind.LOCAL, f"cannot prepare TLS: {error.strerror or type(error).__name__}"
            ) from None

    async def _exchange(self, pool: Pool, connection: Connection, request: Request) -> Answer | Lost:
        answer: asyncio.Queue[Answer | Lost] = asyncio.Queue()
        try:
            connection.exchange(request.data, request.deadline, answer.put_nowait)
            result = await answer.get()
        except BaseException:  # such as cancelled: the answer to this request must not meet the next one
            connection.close()
            raise
        self._pools.take_back(pool, connection, success=is_success(result))
        return result


def fixed_lines(user_agent: str) -> bytes:
    """Return the header lines that every request has besides host, content-length and its own."""
    return f"user-agent: {user_agent}\r\naccept-encoding: identity\r\n".encode("ascii")
