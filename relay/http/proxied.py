"""The sender for an explicit egress proxy: one tunnel, one connection and one request a delivery.

The exchange itself is httpcore's, the engine of httpx, on a stream of ours. Not httpx as a whole, because it rewrites
paths such as /a/../b, asks a proxy for `::1:443` where [::1]:443 is meant, lets a plain-http proxy answer in the
receiver's name, and hides the bytes that the verdict is read from.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import httpcore

from relay.http.dial import DialError, tls_context
from relay.http.reader import WITHOUT_BODY, Answer, Lost
from relay.http.resolver import Resolver
from relay.http.response import MAX_HEAD_BYTES, final_head, refusal_of_head
from relay.http.sender import outcome_of, unsent
from relay.http.tls import default_ssl_context
from relay.http.tunnel import BROKEN, Tunneller, encrypted, reason
from relay.model.outcome import OutcomeKind

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from relay.config.egress_proxy import EgressProxy
    from relay.http.addresses import AddressPolicy
    from relay.http.dial import Resolve
    from relay.http.sender import Endpoint
    from relay.model.outcome import Outcome

__all__ = ["ProxySender"]

MOST_UNWATCHED_BYTES = 65_536
"""A request of up to this size is written without looking for an answer meanwhile: the kernels' buffers take it."""


class ProxySender:
    """Sends through one egress proxy, which resolves the names and must itself refuse private addresses.

    Conduct is `DirectSender`'s, with these differences. Of the address policy what the URL alone tells is applied
    (scheme, port, literal address, private name). Every connection serves one request (`connection: close`), because
    nothing but our own reader proves that one may be used again. Plain http, too, goes through CONNECT, so that no
    proxy can answer for the receiver. An outcome has no address. An error of the proxy itself is 'local'
    (`relay.http.tunnel` says which those are). h11 takes folded header lines and a length that is said twice, which
    httptools refuses, and refuses transfer codings beside chunked. Neither proxies nor .netrc of the environment are
    read.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        proxy: EgressProxy,
        *,
        user_agent: str,
        ssl_context: ssl.SSLContext | None = None,
        proxy_ssl_context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        excerpt_bytes: int = 16_384,
    ) -> None:
        self._policy, self._excerpt_bytes = policy, excerpt_bytes
        self._resolver = Resolver()
        self._ssl_context = ssl_context or default_ssl_context()
        self._tunneller = Tunneller(proxy, resolve or self._resolver, proxy_ssl_context or default_ssl_context())
        self._fixed = [
            (b"user-agent", user_agent.encode("ascii")), (b"accept-encoding", b"identity"), (b"connection", b"close")
        ]  # fmt: skip

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        """POST the body; see `Sender.send`."""
        started = time.monotonic()
        deadline = started + timeout_seconds
        refusal = self._policy.refusal_of_url(endpoint.url)
        if refusal is not None:
            return unsent(OutcomeKind.BLOCKED_ADDRESS, refusal, started)
        try:
            pipe = await self._connect(endpoint, deadline)
        except DialError as error:
            return unsent(error.kind, str(error), started)
        try:
            result = await self._exchange(pipe, self._request(endpoint, headers, body), deadline)
        except httpcore.LocalProtocolError:  # its text would repeat the line, which may hold a credential
            return unsent(OutcomeKind.UNSENDABLE, "a header line of this subscription cannot be written", started)
        finally:
            await pipe.aclose()
        return outcome_of(result, None, started)

    async def close(self) -> None:
        """Close what rests; see `Sender.close`."""
        await self._resolver.close()

    async def _connect(self, endpoint: Endpoint, deadline: float) -> ByteStream:
        url, context = endpoint.url, await tls_context(endpoint.url, endpoint.tls, self._ssl_context)
        pipe = await self._tunneller.open(url.host, url.port, deadline)
        if context is None:
            return pipe
        try:
            async with asyncio.timeout_at(deadline):
                return await encrypted(pipe, url.host, context)
        except TimeoutError:
            raise DialError(OutcomeKind.TLS, "tls failed: the handshake did not finish in time") from None
        except BROKEN as error:
            raise DialError(OutcomeKind.TLS, f"tls failed: {reason(error)}") from None

    def _request(self, endpoint: Endpoint, headers: bytes, body: bytes) -> httpcore.Request:
        url = endpoint.url
        lines = [line.partition(b": ")[::2] for line in headers.split(b"\r\n") if line]
        return httpcore.Request(
            b"POST",
            httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            headers=[(b"host", url.authority.encode()), *self._fixed, *lines, (b"content-length", b"%d" % len(body))],
            content=body,
        )

    async def _exchange(self, pipe: ByteStream, request: httpcore.Request, deadline: float) -> Answer | Lost:
        """Send the request and read the answer; a status that arrived stands, whatever becomes of the body."""
        wire, body = _Wire(pipe), bytearray()
        answer: Answer | Lost | None = None
        failure: Exception | None = None
        try:
            async with asyncio.timeout_at(deadline):
                response = await httpcore.AsyncHTTP11Connection(request.url.origin, wire).handle_async_request(request)
                answer = self._judged(response.status, wire)
                if isinstance(answer, Answer) and answer.status not in WITHOUT_BODY:
                    wire.most_bytes += 8 * self._excerpt_bytes  # a chunk of one byte takes six on the wire
                    await self._read_body(response, body)
        except (TimeoutError, httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            failure = error
        if answer is None:
            return Lost(*_loss(wire, failure), bytes(wire.received[: self._excerpt_bytes]))
        return replace(answer, body=bytes(body[: self._excerpt_bytes])) if isinstance(answer, Answer) else answer

    async def _read_body(self, response: httpcore.Response, body: bytearray) -> None:
        async with aclosing(response.aiter_stream()) as pieces:  # type: ignore[type-var]  # it is a generator
            async for piece in pieces:
                body += piece
                if len(body) > self._excerpt_bytes:
                    return

    def _judged(self, status: int, wire: _Wire) -> Answer | Lost:
        """Judge the head by the rules of `DirectSender`, and believe it only if h11 read the same."""
        head, _ = final_head(wire.received)
        fault = refusal_of_head(head)
        if fault is None and (int(head[9:12]) != status or head.count(b"\n") != head.count(b"\r\n")):
            fault = "its head can be read in two ways"  # h11 takes a line feed alone for the end of a line
        if fault is not None:
            return Lost(OutcomeKind.PROTOCOL, fault, bytes(wire.received[: self._excerpt_bytes]))
        return Answer(status, head, b"", reusable=False)


class _Wire(httpcore.AsyncNetworkStream):
    """The pipe as httpcore uses it: keeps what arrives, bounds it, and listens while it writes.

    Timeouts are not its business; the deadline is around everything.
    """

    def __init__(self, pipe: ByteStream) -> None:
        self._pipe = pipe
        self._early = b""
        self.received = bytearray()
        self.ended = False
        self.most_bytes = MAX_HEAD_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109 - httpcore's
        if len(self.received) > self.most_bytes:
            raise httpcore.RemoteProtocolError(f"the headers take more than {MAX_HEAD_BYTES} bytes")
        data, self._early = self._early or await self._received(), b""
        self.received += data
        self.ended = not data
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109 - httpcore's
        """Write until an answer comes: its sender may read no further. httpcore then goes on to read it."""
        try:
            if len(buffer) <= MOST_UNWATCHED_BYTES:
                await self._pipe.send(buffer)
            elif not await self._sent_before_an_answer(buffer):
                raise httpcore.WriteError("answered before the whole request was written")
        except BROKEN as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._pipe.aclose()

    def get_extra_info(self, info: str) -> Any:  # noqa: ARG002 - there is none
        return None

    async def _received(self) -> bytes:
        try:
            return await self._pipe.receive()
        except anyio.EndOfStream:
            return b""
        except BROKEN as error:
            raise httpcore.ReadError(str(error)) from error

    async def _sent_before_an_answer(self, buffer: bytes) -> bool:
        listening, writing = (asyncio.ensure_future(work) for work in (self._received(), self._pipe.send(buffer)))
        try:
            await asyncio.wait((listening, writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
            writing.cancel()
            await asyncio.gather(listening, writing, return_exceptions=True)
        if not listening.cancelled() and listening.exception() is None:
            self._early = listening.result() or b""
        if writing.cancelled():
            return False
        writing.result()
        return True


def _loss(wire: _Wire, failure: Exception | None) -> tuple[OutcomeKind, str]:
    """Return how the answer was lost, in the classes and words of `Connection`."""
    if isinstance(failure, TimeoutError):
        return OutcomeKind.TIMEOUT, "no complete answer in time"
    cause = failure and failure.__cause__
    if isinstance(cause, ssl.SSLError):
        return OutcomeKind.TLS, f"closed without a complete answer: {reason(cause)}"
    if wire.ended or isinstance(failure, httpcore.NetworkError):
        return OutcomeKind.CONNECTION, "closed without a complete answer"
    return (
        OutcomeKind.PROTOCOL,
        f"not a valid HTTP response: {str(failure).partition(': ')[0]}",
    )  # what follows is the data
