"""Asking one endpoint: a test message over the real path, and a look at the way there without sending anything.

Both open and close what they need by themselves, hold no transaction while they wait for the network, and return one
document. No value of a credential is in it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from outbox.errors import OutboxError
from outbox.recording.payload import RawJSON, encode
from outbox.recording.record import Outbox, checked_type
from outbox.subscriptions.url import parse_url
from relay.http.configured import make_policy, make_sender
from relay.http.inspection.inspect import inspect
from relay.http.inspection.inspect_tunnel import inspect_through
from relay.http.resolver import Resolver
from relay.http.sender import Endpoint
from relay.http.tls import default_ssl_context
from relay.http.tunnel import Tunneller
from relay.message.envelope import Envelope
from relay.model.outcome import Outcome, OutcomeKind
from relay.operations.connection import transaction
from relay.operations.probe import diagnosis
from relay.operations.probe.exchange import Recorder, response_document
from relay.operations.probe.target import log_test, make_event, read_target, require_log, require_patience
from relay.secrets.keyring import Keyring, KeyUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from relay.config.options import Config
    from relay.http.inspection.steps import Step
    from relay.http.sender import Sender
    from relay.model.event import Event
    from relay.model.subscription import Subscription
    from relay.operations.probe.target import Logged, Target

__all__ = ["DEFAULT_TYPE", "Network", "check_endpoint", "network_of", "send_test"]

DEFAULT_TYPE = "outbox.test"
DEFAULT_DATA = '{"test":true}'
MOST_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Network:
    """The way out: what sends, and what looks at the way to an endpoint within so many seconds a step."""

    sender: Sender
    look: Callable[[Endpoint, float], Awaitable[list[Step]]]


def network_of(config: Config) -> Network:
    """Return the way out that `relay run` uses under this configuration. Called inside a running loop."""
    policy, resolver, proxy = make_policy(config), Resolver(), config.egress_proxy

    async def look(endpoint: Endpoint, seconds: float) -> list[Step]:
        if proxy is None:
            return await inspect(endpoint, policy, resolver, timeout_seconds=seconds)
        tunneller = Tunneller(proxy, resolver, default_ssl_context())
        return await inspect_through(tunneller, endpoint, policy, timeout_seconds=seconds)

    return Network(make_sender(config), look)


def send_test(
    config: Config,
    subscription_id: str,
    *,
    type: str = DEFAULT_TYPE,  # noqa: A002 - the event's type is called type everywhere
    data: str | None = None,
    tenant: str | None = None,
    network: Callable[[Config], Network] = network_of,
) -> dict[str, Any]:
    """Send one message that is no event of anybody's, log it as a test attempt, and return what came of it.

    It goes out as a delivery does, also to a subscription that is paused, disabled or held back, and counts in no
    statistic.

    Args:
        config: the relay's.
        subscription_id: `sub_…` or the UUID.
        type: of the message, dotted words as for `record()`.
        data: JSON text; by default an object that says it is a test.
        tenant: only if the subscription is this tenant's; None is the operator.
        network: makes the way out.

    Raises:
        RecordError: type or data was refused.
        ProbeError: too many test messages went there in the last minute.
        NotFoundError: no such subscription for this tenant, or it is removed.
        RightsError: the role may not log it. In each case nothing was sent.
    """
    type = checked_type(type)  # noqa: A001
    payload = encode(RawJSON(DEFAULT_DATA if data is None else data), Outbox().max_payload_bytes)
    with transaction(config) as connection:
        target = read_target(connection, tenant, subscription_id)
        require_patience(connection, target)
        require_log(connection)
        event = make_event(connection, type, payload)
    sent = _run(_send(config, target, event, network))
    with transaction(config) as connection:
        logged = log_test(connection, target, sent.outcome)
    return _test_document(target, logged, sent)


def check_endpoint(
    config: Config,
    subscription_id: str,
    *,
    tenant: str | None = None,
    network: Callable[[Config], Network] = network_of,
) -> dict[str, Any]:
    """Look at everything between here and the endpoint, send no byte of HTTP, and return the steps.

    Raises NotFoundError when there is no such subscription for this tenant, or it is removed.
    """
    with transaction(config) as connection:
        target = read_target(connection, tenant, subscription_id)
    steps = [] if target.hindrance is None else [_step("state", "warning", target.hindrance)]
    endpoint, secrets = _opened(config, target.subscription)
    steps.append(secrets)
    found: list[Step] = []
    seconds = float(target.subscription.timeout_seconds)
    if endpoint is not None:
        found = _run(_look(config, endpoint, seconds, network))
    steps += [asdict(step) for step in found]
    ok = all(step["state"] != "failed" for step in steps)
    words = secrets["text"] + "."
    if secrets["state"] == "ok":
        words = diagnosis.of_steps(str(target.id), parse_url(target.subscription.url), found, seconds)
    return {
        "subscription_id": str(target.id),
        "url": target.subscription.url,
        "ok": ok,
        "steps": steps,
        "diagnosis": words,
    }


def _opened(config: Config, subscription: Subscription) -> tuple[Endpoint | None, dict[str, Any]]:
    """Return where to, and whether the secrets can be opened; no endpoint where the URL cannot be read."""
    kinds = Counter(kind for kind, _ in subscription.secrets)
    try:
        endpoint = Envelope(subscription, Keyring(config.secret_key)).endpoint
    except OutboxError as error:
        failed = _step("secrets", "failed", str(error))
        try:
            return Endpoint.of(subscription.url), failed
        except OutboxError:
            return None, _step("url", "failed", str(error))
    named = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in kinds.items())
    return endpoint, _step("secrets", "ok", f"can be opened: {named}")


def _step(name: str, state: str, words: str) -> dict[str, Any]:
    return {"name": name, "state": state, "text": words, "cause": None, "addresses": (), "milliseconds": None,
            "certificate": None}  # fmt: skip


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner() as runner:
        return runner.run(coroutine)


async def _look(config: Config, endpoint: Endpoint, seconds: float, network: Callable[[Config], Network]) -> list[Step]:
    out = network(config)
    try:
        return await out.look(endpoint, seconds)
    finally:
        await out.sender.close()


@dataclass(frozen=True)
class _Sent:
    outcome: Outcome
    request: dict[str, Any] | None
    steps: list[Step]
    diagnosis: str


async def _send(config: Config, target: Target, event: Event, network: Callable[[Config], Network]) -> _Sent:
    subscription = target.subscription
    try:
        envelope = Envelope(subscription, Keyring(config.secret_key))
    except OutboxError as error:
        kind: OutcomeKind = (
            OutcomeKind.KEY_UNAVAILABLE if isinstance(error, KeyUnavailableError) else OutcomeKind.UNSENDABLE
        )
        return _Sent(Outcome(kind, None, 0, str(error), sent=False), None, [], f"{error}.")
    out = network(config)
    recorder = Recorder(out.sender)
    try:
        seconds = float(subscription.timeout_seconds)
        outcome = await envelope.send(recorder, event, b"%d" % target.unix_seconds, seconds)
        request = recorder.request(envelope.endpoint)
        steps = await _second_look(out, envelope.endpoint, outcome, seconds) if request else []
    finally:
        await recorder.close()
    return _Sent(outcome, request, steps, _words(target, envelope.endpoint, outcome, steps))


_OF_THE_WAY = (
    OutcomeKind.DNS,
    OutcomeKind.BLOCKED_ADDRESS,
    OutcomeKind.REFUSED,
    OutcomeKind.TIMEOUT,
    OutcomeKind.CONNECTION,
    OutcomeKind.TLS,
)


async def _second_look(out: Network, endpoint: Endpoint, outcome: Outcome, seconds: float) -> list[Step]:
    """Look at the way where the message did not get through: what failed is then told as `check` tells it."""
    if outcome.kind not in _OF_THE_WAY or (outcome.kind == OutcomeKind.TIMEOUT and outcome.sent):
        return []
    return await out.look(endpoint, min(seconds, MOST_LOOK_SECONDS))


def _words(target: Target, endpoint: Endpoint, outcome: Outcome, steps: Sequence[Step]) -> str:
    seconds = float(target.subscription.timeout_seconds)
    if any(step.state == "failed" for step in steps):
        return diagnosis.of_steps(str(target.id), endpoint.url, steps, seconds)
    words = diagnosis.of_outcome(str(target.id), endpoint.url, outcome, seconds)
    return f"{words} A look just after found the way open: it comes and goes." if steps and not outcome.sent else words


def _test_document(target: Target, logged: Logged, sent: _Sent) -> dict[str, Any]:
    outcome = sent.outcome
    return {
        "subscription_id": str(target.id),
        "delivery_id": str(logged.delivery_id),
        "at": logged.at,
        "ok": outcome.kind == OutcomeKind.DELIVERED,
        "sent": outcome.sent,
        "outcome": outcome.kind,
        "status": outcome.status,
        "milliseconds": outcome.milliseconds,
        "error": outcome.error,
        "address": outcome.address,
        "hindrance": target.hindrance,
        "request": sent.request,
        "response": response_document(outcome),
        "steps": [asdict(step) for step in sent.steps],
        "diagnosis": sent.diagnosis,
    }
