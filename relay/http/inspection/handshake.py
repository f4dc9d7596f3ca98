"""The last step to an endpoint: TLS with it, looked at, and nothing said afterwards. The same on every way there."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relay.http.dial import DialError
from relay.http.inspection.certificate import read_certificate
from relay.http.inspection.steps import OF_CERTIFICATE, Step, failure_of_tls, warn_of_expiry
from relay.http.tls import unverifying_context
from relay.model.outcome import milliseconds_since

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from outbox.subscriptions.url import Url
    from relay.http.dial import Reached
    from relay.http.inspection.certificate import Certificate

__all__ = ["Way", "check_tls", "speaks_tls"]

LAST_ALERT_SECONDS = 0.4  # with TLS 1.3 a server refuses the client's certificate only after the handshake


@dataclass(frozen=True, slots=True)
class Way:
    """A way to an endpoint that was found open: `reach` takes it again, until a deadline of the loop.

    `addresses` is the one at its end; a way through a proxy has none.
    """

    reach: Callable[[float], Awaitable[Reached]]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handshake:
    """A finished handshake: version and cipher, the server's certificate, and the alert it closed with, if it did."""

    text: str
    certificate: Certificate | None
    milliseconds: int
    alert: Exception | None


async def check_tls(way: Way, url: Url, context: ssl.SSLContext, timeout_seconds: float) -> Step:
    """Shake hands with the endpoint, and return what came of it."""
    started = time.monotonic()
    try:
        done = await _shake_hands(way, url, context, timeout_seconds, LAST_ALERT_SECONDS)
    except (OSError, DialError) as error:
        cause, text = failure_of_tls(error)
        failed = Step(name="tls", state="failed", text=text, cause=cause, addresses=way.addresses,
                      milliseconds=milliseconds_since(started))  # fmt: skip
        seen = await fetch_certificate(way, url, timeout_seconds) if cause in OF_CERTIFICATE else None
        return replace(failed, certificate=seen)
    step = Step(name="tls", state="ok", text=f"{done.text}, valid for {url.host}", addresses=way.addresses,
                milliseconds=done.milliseconds, certificate=done.certificate)  # fmt: skip
    if done.alert is None:
        return warn_of_expiry(step)
    cause, text = failure_of_tls(done.alert)
    return replace(step, state="failed", text=text, cause=cause)


async def speaks_tls(way: Way, url: Url, timeout_seconds: float) -> bool:
    """Tell whether anything there shakes hands, whoever it is."""
    try:
        await _shake_hands(way, url, unverifying_context(), timeout_seconds)
    except (OSError, DialError):
        return False
    return True


async def fetch_certificate(way: Way, url: Url, timeout_seconds: float) -> Certificate | None:
    """Return the certificate that did not verify, by a second handshake that looks at it and trusts nothing."""
    try:
        return (await _shake_hands(way, url, unverifying_context(), timeout_seconds)).certificate
    except (OSError, DialError):
        return None


class _Listening(asyncio.Protocol):
    """Says nothing; `ended` is done when the other side has closed, with its error if it gave one."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        """Keep the error, which may be the alert of a server that wants a client certificate."""
        if not self.ended.done():
            self.ended.set_result(error)


async def _shake_hands(
    way: Way, url: Url, context: ssl.SSLContext, timeout_seconds: float, listen_seconds: float = 0.0
) -> Handshake:
    """Shake hands, listen whether the server takes it back, and hang up. Raises OSError and DialError."""
    deadline, started = asyncio.get_running_loop().time() + timeout_seconds, time.monotonic()
    listening = _Listening()
    transport = await (await way.reach(deadline)).open(listening, url.host, context, deadline)
    took = milliseconds_since(started)
    try:
        tls = transport.get_extra_info("ssl_object")
        text, der = f"{tls.version()}, {(tls.cipher() or ('no cipher',))[0]}", tls.getpeercert(binary_form=True)
        await asyncio.wait([listening.ended], timeout=listen_seconds)
        alert = listening.ended.result() if listening.ended.done() else None
    finally:
        transport.abort()
    return Handshake(text, await asyncio.to_thread(read_certificate, der), took, alert)
