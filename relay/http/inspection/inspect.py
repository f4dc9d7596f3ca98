"""The way to an endpoint, step by step as the sender takes it: dns, policy, tcp, tls. Not one byte of HTTP is sent.

Every address is judged by the same policy and dialled by the same function as for an attempt; what the policy
forbids is not dialled.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from relay.http.addresses import is_private_name, literal_address
from relay.http.dial import MAX_SECONDS_AN_ADDRESS, DialError, connected, judged
from relay.http.inspection.certificate import read_certificate
from relay.http.inspection.steps import (
    LAST_ALERT_SECONDS,
    OF_CERTIFICATE,
    Step,
    context_for,
    failure_of_tls,
    refused_url,
    with_its_end,
)
from relay.http.tls import unverifying_context
from relay.model.outcome import OutcomeKind, milliseconds_since

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from outbox.subscriptions.url import Url
    from relay.http.addresses import AddressPolicy
    from relay.http.dial import Resolve
    from relay.http.inspection.certificate import Certificate
    from relay.http.inspection.steps import Cause
    from relay.http.sender import Endpoint

__all__ = ["inspect"]

MAX_ADDRESSES = 16  # shown, and dialled
PLAIN_PROBE_SECONDS = 1.0  # for a port of an http:// URL to show that it speaks TLS


async def inspect(
    endpoint: Endpoint,
    policy: AddressPolicy,
    resolve: Resolve,
    *,
    timeout_seconds: float,
    ssl_context: ssl.SSLContext | None = None,
) -> list[Step]:
    """Take the steps in order up to the first that fails, and return them; each may last `timeout_seconds`."""
    url = endpoint.url
    refused = refused_url(url, policy)
    if refused is not None:
        return [refused]
    steps = [await _resolved(url, resolve, timeout_seconds)]
    if steps[-1].state == "ok":
        refusals = judged(policy, steps[-1].addresses)
        allowed = [address for address, refusal in refusals.items() if refusal is None]
        steps += _verdict(url.host, refusals)
    if any(step.state == "failed" for step in steps):
        return steps
    dialled = allowed[:MAX_ADDRESSES]
    reached = await asyncio.gather(*(_reached(address, url.port, timeout_seconds) for address in dialled))
    steps += _tolerated(reached)
    accepting = [step.addresses[0] for step in reached if step.state == "ok"]
    if url.scheme == "https":
        context = await context_for(endpoint, ssl_context)
        if isinstance(context, Step):
            return [*steps, context]
        steps += await asyncio.gather(*(_secured(address, url, context, timeout_seconds) for address in accepting))
    elif accepting:
        steps.append(await _plain(accepting[0], url))
    return steps


async def _resolved(url: Url, resolve: Resolve, timeout_seconds: float) -> Step:
    if literal_address(url.host):
        return Step(name="dns", state="ok", text="the host is an address", addresses=(url.host,))
    started = time.monotonic()
    cause: Cause = "no_such_name"
    addresses: Sequence[str] = ()
    try:
        async with asyncio.timeout(timeout_seconds):
            addresses = await resolve(url.host)
        text = "the name has no address"
    except TimeoutError:
        cause, text = "dns_timeout", "no answer in time"
    except OSError as error:
        cause, text = _cause_of_dns(error), f"{error.strerror or error}"
    if not addresses:
        return Step(name="dns", state="failed", text=text, cause=cause, milliseconds=milliseconds_since(started))
    more = f" and {len(addresses) - MAX_ADDRESSES} more" if len(addresses) > MAX_ADDRESSES else ""
    return Step(name="dns", state="ok", text=", ".join(addresses[:MAX_ADDRESSES]) + more, addresses=tuple(addresses),
                milliseconds=milliseconds_since(started))  # fmt: skip


def _cause_of_dns(error: OSError) -> Cause:
    if not isinstance(error, socket.gaierror):
        return "local"
    if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
        return "no_such_name"
    return "local" if error.errno == socket.EAI_MEMORY else "no_answer"


def _verdict(host: str, refusals: Mapping[str, str | None]) -> list[Step]:
    """Say what the policy thinks: one forbidden address of a public name is enough to refuse, as for the sender."""
    forbidden = {address: refusal for address, refusal in refusals.items() if refusal is not None}
    if not forbidden:
        every = "the address" if len(refusals) == 1 else f"each of the {len(refusals)} addresses"
        return [Step(name="policy", state="ok", text=f"{every} may be dialled")]
    passed_over = is_private_name(host) and len(forbidden) < len(refusals)
    return [
        Step(name="policy", state="warning" if passed_over else "failed", text=refusal,
             cause="forbidden", addresses=(address,))
        for address, refusal in list(forbidden.items())[:MAX_ADDRESSES]
    ]  # fmt: skip


_CAUSES: dict[OutcomeKind, Cause] = {
    OutcomeKind.REFUSED: "refused", OutcomeKind.TIMEOUT: "timeout", OutcomeKind.LOCAL: "local"
}  # fmt: skip


async def _reached(address: str, port: int, timeout_seconds: float) -> Step:
    started = time.monotonic()
    seconds = min(timeout_seconds, MAX_SECONDS_AN_ADDRESS)
    try:
        sock = await connected(address, port, asyncio.get_running_loop().time() + seconds)
    except DialError as error:
        cause = _CAUSES.get(error.kind, "connection")
        return Step(name="tcp", state="failed", text=f"{error}", cause=cause, addresses=(address,),
                    milliseconds=milliseconds_since(started))  # fmt: skip
    sock.close()
    return Step(name="tcp", state="ok", text=f"port {port} is open", addresses=(address,),
                milliseconds=milliseconds_since(started))  # fmt: skip


def _tolerated(reached: Sequence[Step]) -> list[Step]:
    """Where one address accepts, the sender gets past those that do not."""
    if all(step.state == "failed" for step in reached):
        return list(reached)
    return [step if step.state == "ok" else replace(step, state="warning") for step in reached]


class _Listening(asyncio.Protocol):
    """Says nothing; `ended` is done when the other side has closed, with its error if it gave one."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        """Keep the error, which may be the alert of a server that wants a client certificate."""
        if not self.ended.done():
            self.ended.set_result(error)


async def _secured(address: str, url: Url, context: ssl.SSLContext, timeout_seconds: float) -> Step:
    started = time.monotonic()
    try:
        shaken = await _handshake(address, url, context, timeout_seconds, LAST_ALERT_SECONDS)
    except (OSError, DialError) as error:
        cause, text = failure_of_tls(error)
        failed = Step(name="tls", state="failed", text=text, cause=cause, addresses=(address,),
                      milliseconds=milliseconds_since(started))  # fmt: skip
        shown = await _shown(address, url, timeout_seconds) if cause in OF_CERTIFICATE else None
        return replace(failed, certificate=shown)
    step = Step(name="tls", state="ok", text=f"{shaken.text}, valid for {url.host}", addresses=(address,),
                milliseconds=shaken.milliseconds,
                certificate=await asyncio.to_thread(read_certificate, shaken.der))  # fmt: skip
    if shaken.alert is None:
        return with_its_end(step)
    cause, text = failure_of_tls(shaken.alert)
    return replace(step, state="failed", text=text, cause=cause)


class _Shaken(NamedTuple):
    """A finished handshake: version and cipher, the server's certificate, and the alert it closed with, if it did."""

    text: str
    der: bytes | None
    milliseconds: int
    alert: Exception | None


async def _handshake(
    address: str, url: Url, context: ssl.SSLContext, timeout_seconds: float, listen_seconds: float = 0.0
) -> _Shaken:
    """Shake hands, listen whether the server takes it back, and hang up. Raises OSError and DialError."""
    loop, started = asyncio.get_running_loop(), time.monotonic()
    deadline = loop.time() + timeout_seconds
    sock = await connected(address, url.port, min(deadline, loop.time() + MAX_SECONDS_AN_ADDRESS))
    seconds = max(deadline - loop.time(), 0.001)
    transport, listening = await loop.create_connection(
        _Listening, sock=sock, ssl=context, server_hostname=url.host, ssl_handshake_timeout=seconds
    )
    took = milliseconds_since(started)
    try:
        tls = transport.get_extra_info("ssl_object")
        text, der = f"{tls.version()}, {(tls.cipher() or ('no cipher',))[0]}", tls.getpeercert(binary_form=True)
        await asyncio.wait([listening.ended], timeout=listen_seconds)
        return _Shaken(text, der, took, listening.ended.result() if listening.ended.done() else None)
    finally:
        transport.abort()


async def _shown(address: str, url: Url, timeout_seconds: float) -> Certificate | None:
    """Return the certificate that did not verify, from a second handshake that looks at it and trusts nothing."""
    try:
        shaken = await _handshake(address, url, unverifying_context(), timeout_seconds)
    except (OSError, DialError):
        return None
    return await asyncio.to_thread(read_certificate, shaken.der)


async def _plain(address: str, url: Url) -> Step:
    try:
        await _handshake(address, url, unverifying_context(), PLAIN_PROBE_SECONDS)
    except (OSError, DialError):
        return Step(name="tls", state="ok", text="not used: the URL begins with http://")
    return Step(name="tls", state="failed", text=f"port {url.port} speaks TLS, but the URL begins with http://",
                cause="speaks_tls", addresses=(address,))  # fmt: skip
