"""The way to an endpoint through the operator's egress proxy, step by step: what of it this side can see.

Names and addresses are the proxy's affair. The tunnel is opened as for an attempt, the handshake goes to the endpoint
itself, and not one byte of HTTP follows.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
from anyio.streams.tls import TLSAttribute

from relay.http.dial import DialError
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
from relay.http.tunnel import BROKEN, encrypted
from relay.model.outcome import milliseconds_since

if TYPE_CHECKING:
    import ssl

    from anyio.abc import ByteStream

    from outbox.subscriptions.url import Url
    from relay.http.addresses import AddressPolicy
    from relay.http.inspection.certificate import Certificate
    from relay.http.sender import Endpoint
    from relay.http.tunnel import Tunneller

__all__ = ["inspect_through"]

_FAILED = (DialError, *BROKEN)


async def inspect_through(
    tunneller: Tunneller,
    endpoint: Endpoint,
    policy: AddressPolicy,
    *,
    timeout_seconds: float,
    ssl_context: ssl.SSLContext | None = None,
) -> list[Step]:
    """Take the steps in order up to the first that fails, and return them; each may last `timeout_seconds`."""
    url = endpoint.url
    refused = refused_url(url, policy)
    if refused is not None:
        return [refused]
    steps = [
        Step(name="dns", state="ok", text="left to the egress proxy"),
        Step(name="policy", state="ok", text="the URL is allowed; addresses are the egress proxy's to refuse"),
        await _tunnelled(tunneller, url, timeout_seconds),
    ]
    if steps[-1].state == "ok" and url.scheme == "https":
        context = await context_for(endpoint, ssl_context)
        secured = context if isinstance(context, Step) else await _secured(tunneller, url, context, timeout_seconds)
        steps.append(secured)
    return steps


async def _tunnelled(tunneller: Tunneller, url: Url, timeout_seconds: float) -> Step:
    started = time.monotonic()
    try:
        pipe = await tunneller.open(url.host, url.port, asyncio.get_running_loop().time() + timeout_seconds)
    except DialError as error:
        return Step(name="proxy", state="failed", text=str(error), milliseconds=milliseconds_since(started))
    await pipe.aclose()
    text = f"it opens a tunnel to {url.host}, port {url.port}"
    return Step(name="proxy", state="ok", text=text, milliseconds=milliseconds_since(started))


async def _secured(tunneller: Tunneller, url: Url, context: ssl.SSLContext, timeout_seconds: float) -> Step:
    started = time.monotonic()
    try:
        text, certificate, alert = await _handshake(tunneller, url, context, timeout_seconds, LAST_ALERT_SECONDS)
    except _FAILED as error:
        cause, text = failure_of_tls(error)
        failed = Step(name="tls", state="failed", text=text, cause=cause, milliseconds=milliseconds_since(started))
        if cause not in OF_CERTIFICATE:
            return failed
        return replace(failed, certificate=await _shown(tunneller, url, timeout_seconds))
    step = Step(name="tls", state="ok", text=f"{text}, valid for {url.host}", certificate=certificate,
                milliseconds=milliseconds_since(started))  # fmt: skip
    if alert is None:
        return with_its_end(step)
    cause, text = failure_of_tls(alert)
    return replace(step, state="failed", text=text, cause=cause)


async def _handshake(
    tunneller: Tunneller, url: Url, context: ssl.SSLContext, timeout_seconds: float, listen_seconds: float = 0.0
) -> tuple[str, Certificate | None, Exception | None]:
    """Return version and cipher, the certificate, and the alert by which the server took it back, if it did."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    async with asyncio.timeout_at(deadline):
        pipe = await encrypted(await tunneller.open(url.host, url.port, deadline), url.host, context)
    try:
        said = pipe.extra
        text = f"{said(TLSAttribute.tls_version)}, {said(TLSAttribute.cipher)[0]}"
        certificate = await asyncio.to_thread(read_certificate, said(TLSAttribute.peer_certificate_binary))
        return text, certificate, await _alert(pipe, listen_seconds)
    finally:
        await pipe.aclose()


async def _alert(pipe: ByteStream, listen_seconds: float) -> Exception | None:
    try:
        with anyio.move_on_after(listen_seconds):
            await pipe.receive(1)
    except anyio.BrokenResourceError as error:
        return error.__cause__ if isinstance(error.__cause__, OSError) else None
    except OSError as error:  # ssl.SSLError is one
        return error
    except anyio.EndOfStream:
        return None
    return None


async def _shown(tunneller: Tunneller, url: Url, timeout_seconds: float) -> Certificate | None:
    """Return the certificate that did not verify, from a second handshake that looks at it and trusts nothing."""
    try:
        return (await _handshake(tunneller, url, unverifying_context(), timeout_seconds))[1]
    except _FAILED:
        return None
