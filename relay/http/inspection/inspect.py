"""The way to an endpoint, step by step as the sender takes it. Not one byte of HTTP is sent.

Directly the steps are dns, policy, tcp, tls: every address is judged by the same policy and dialled by the same
function as for an attempt; what the policy forbids is not dialled. Through an egress proxy they are dns, policy, proxy,
tls: names and addresses are the proxy's affair, and the tunnel is opened as for an attempt.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from outbox.subscriptions.addresses import is_private_name, literal_address
from relay.http.dial import MAX_SECONDS_AN_ADDRESS, DialError, DirectDialler, connect, judge_addresses
from relay.http.inspection.handshake import Way, check_tls, speaks_tls
from relay.http.inspection.steps import Step, context_for, refused_url
from relay.model.outcome import OutcomeKind, milliseconds_since

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from outbox.subscriptions.url import Url
    from relay.http.dial import Reached, Resolve
    from relay.http.inspection.steps import Cause
    from relay.http.sender import Endpoint
    from relay.http.tunnel import TunnelDialler

__all__ = ["inspect"]

MAX_ADDRESSES = 16  # shown, and dialled
PLAIN_PROBE_SECONDS = 1.0  # for a port of an http:// URL to show that it speaks TLS


async def inspect(
    endpoint: Endpoint,
    dialler: DirectDialler | TunnelDialler,
    *,
    timeout_seconds: float,
    ssl_context: ssl.SSLContext | None = None,
) -> list[Step]:
    """Take the steps in order up to the first that fails, and return them; each may last `timeout_seconds`."""
    url = endpoint.url
    refused = refused_url(url, dialler.policy)
    if refused is not None:
        return [refused]
    steps, ways = await (
        _find_direct(dialler, url, timeout_seconds)
        if isinstance(dialler, DirectDialler)
        else _find_tunnel(dialler, url, timeout_seconds)
    )
    if not ways:
        return steps
    if url.scheme == "http":
        return [*steps, *await _check_plain(ways[0], url)]
    context = await context_for(endpoint, ssl_context)
    if isinstance(context, Step):
        return [*steps, context]
    return [*steps, *await asyncio.gather(*(check_tls(way, url, context, timeout_seconds) for way in ways))]


async def _find_direct(dialler: DirectDialler, url: Url, timeout_seconds: float) -> tuple[list[Step], list[Way]]:
    steps = [await _resolve(url, dialler.resolve, timeout_seconds)]
    if steps[-1].state == "failed":
        return steps, []
    refusals = judge_addresses(dialler.policy, steps[-1].addresses)
    steps += _judge(url.host, refusals)
    if any(step.state == "failed" for step in steps):
        return steps, []
    allowed = [address for address, refusal in refusals.items() if refusal is None][:MAX_ADDRESSES]
    dialled = await asyncio.gather(*(_dial(address, url.port, timeout_seconds) for address in allowed))
    ways = [_way_to(step.addresses[0], url.port) for step in dialled if step.state == "ok"]
    return steps + _tolerate(dialled), ways


async def _find_tunnel(dialler: TunnelDialler, url: Url, timeout_seconds: float) -> tuple[list[Step], list[Way]]:
    steps = [
        Step(name="dns", state="ok", text="left to the egress proxy"),
        Step(name="policy", state="ok", text="the URL is allowed; addresses are the egress proxy's to refuse"),
    ]
    started = time.monotonic()
    try:
        (await dialler.reach(url, asyncio.get_running_loop().time() + timeout_seconds)).close()
    except DialError as error:
        failed = Step(name="proxy", state="failed", text=str(error), milliseconds=milliseconds_since(started))
        return [*steps, failed], []
    text = f"it opens a tunnel to {url.host}, port {url.port}"
    opened = Step(name="proxy", state="ok", text=text, milliseconds=milliseconds_since(started))
    return [*steps, opened], [Way(lambda deadline: dialler.reach(url, deadline))]


async def _resolve(url: Url, resolve: Resolve, timeout_seconds: float) -> Step:
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


def _judge(host: str, refusals: Mapping[str, str | None]) -> list[Step]:
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


async def _dial(address: str, port: int, timeout_seconds: float) -> Step:
    started = time.monotonic()
    seconds = min(timeout_seconds, MAX_SECONDS_AN_ADDRESS)
    try:
        reached = await connect(address, port, asyncio.get_running_loop().time() + seconds)
    except DialError as error:
        cause = _CAUSES.get(error.kind, "connection")
        return Step(name="tcp", state="failed", text=f"{error}", cause=cause, addresses=(address,),
                    milliseconds=milliseconds_since(started))  # fmt: skip
    reached.close()
    return Step(name="tcp", state="ok", text=f"port {port} is open", addresses=(address,),
                milliseconds=milliseconds_since(started))  # fmt: skip


def _tolerate(dialled: Sequence[Step]) -> list[Step]:
    """Where one address accepts, the sender gets past those that do not."""
    if all(step.state == "failed" for step in dialled):
        return list(dialled)
    return [step if step.state == "ok" else replace(step, state="warning") for step in dialled]


def _way_to(address: str, port: int) -> Way:
    async def reach(deadline: float) -> Reached:
        soon = asyncio.get_running_loop().time() + MAX_SECONDS_AN_ADDRESS
        return await connect(address, port, min(deadline, soon))

    return Way(reach, (address,))


async def _check_plain(way: Way, url: Url) -> list[Step]:
    """Look whether the port of an http:// URL speaks TLS; through a proxy there is no telling who would."""
    if not way.addresses:
        return []
    if not await speaks_tls(way, url, PLAIN_PROBE_SECONDS):
        return [Step(name="tls", state="ok", text="not used: the URL begins with http://")]
    return [Step(name="tls", state="failed", text=f"port {url.port} speaks TLS, but the URL begins with http://",
                 cause="speaks_tls", addresses=way.addresses)]  # fmt: skip
