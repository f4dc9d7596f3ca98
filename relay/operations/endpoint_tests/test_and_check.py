"""Try one endpoint: send a test message over the real path, or inspect the way there without sending anything.

Both run in the caller's event loop, open and close what they need by themselves, and hold no transaction while they
wait for the network. The database is asked in a thread.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread

from outbox.errors import OutboxError
from outbox.recording.arguments import checked_type
from outbox.recording.payload import RawJSON, encode
from outbox.recording.record import Outbox
from outbox.subscriptions.url import parse_url
from relay.http.configured import make_dialler, make_sender
from relay.http.inspection.inspect import inspect
from relay.http.sender import Endpoint
from relay.message.envelope import Envelope
from relay.message.transformation.budget import TransformationError
from relay.model.outcome import Outcome, OutcomeKind
from relay.operations.endpoint_tests import diagnosis
from relay.operations.endpoint_tests.documents import CheckedEndpoint, CheckedStep, SentTest
from relay.operations.endpoint_tests.request_and_response import Recorder, response_of
from relay.operations.endpoint_tests.tested_subscription import (
    log_test,
    make_event,
    read_subscription,
    require_home,
    require_log,
    require_patience,
)
from relay.secrets.keyring import Keyring, KeyUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from outbox.control.findings import Finding
    from relay.config.options import Config
    from relay.http.inspection.steps import Step
    from relay.http.sender import Sender
    from relay.model.event import EventParts
    from relay.operations.connection import Database
    from relay.operations.endpoint_tests.documents import SentRequest
    from relay.operations.endpoint_tests.tested_subscription import Logged, TestedSubscription

__all__ = ["DEFAULT_TYPE", "Network", "check_endpoint", "network_of", "prepare", "send_prepared", "send_test"]

DEFAULT_TYPE = "outbox.test"
DEFAULT_DATA = '{"test":true}'
MOST_INSPECT_SECONDS = 10.0


@dataclass(frozen=True)
class Network:
    """The way out: what sends, and what inspects the way to an endpoint within so many seconds a step."""

    sender: Sender
    inspect_way: Callable[[Endpoint, float], Awaitable[list[Step]]]


def network_of(config: Config) -> Network:
    """Return the way out that `relay run` uses under this configuration. Called inside a running loop."""
    dialler = make_dialler(config)

    async def inspect_way(endpoint: Endpoint, seconds: float) -> list[Step]:
        return await inspect(endpoint, dialler, timeout_seconds=seconds)

    return Network(make_sender(config, dialler), inspect_way)


async def send_test(
    database: Database,
    tenant: str | None,
    subscription_id: UUID | str,
    *,
    type: str = DEFAULT_TYPE,  # noqa: A002 - the event's type is called type everywhere
    data: str | None = None,
    network: Callable[[Config], Network] = network_of,
    meanwhile: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> SentTest:
    """Send one message that belongs to no event, log it as a test attempt, and return what came of it.

    It goes out like a delivery, also to a subscription that is paused, disabled or held back. No statistic counts it.

    Args:
        database: where the subscription is, and the relay's configuration.
        tenant: who asks; None is the operator.
        subscription_id: `sub_…`, the UUID, or its name.
        type: of the message, dotted words as for `record()`.
        data: JSON text; by default an object that says it is a test.
        network: makes the way out.
        meanwhile: entered while the network is waited for; no database is asked within. May raise ProbeError.

    Raises:
        RecordError: type or data was refused.
        ProbeError: too many test messages went there in the last minute, or the database is a copy.
        NotFoundError: no such subscription for this tenant, or it is removed.
        RightsError: the role may not log it. In each case nothing was sent.
    """
    type = checked_type(type)  # noqa: A001
    payload = encode(RawJSON(DEFAULT_DATA if data is None else data), Outbox().max_payload_bytes)
    target, event = await to_thread.run_sync(prepare, database, tenant, subscription_id, type, payload)
    out = network(database.config)
    try:
        return await send_prepared(database, target, event, out, meanwhile)
    finally:
        await out.sender.close()


async def send_prepared(
    database: Database,
    target: TestedSubscription,
    event: EventParts,
    out: Network,
    meanwhile: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> SentTest:
    """Send what was prepared, log it as a test attempt, and return what came of it; `out` stays open."""
    async with meanwhile():
        sent = await _send(database.config, target, event, out)
    logged = await to_thread.run_sync(_log, database, target, sent.outcome)
    return _sent_test(target, logged, sent)


def prepare(
    database: Database, tenant: str | None, subscription_id: UUID | str, type_: str, payload: str
) -> tuple[TestedSubscription, EventParts]:
    """Read where a test message goes, and make its event. Raises as `send_test` does."""
    with database.transaction() as connection:
        target = read_subscription(connection, tenant, subscription_id)
        require_home(target)
        require_patience(connection, target)
        require_log(connection)
        return target, make_event(connection, type_, payload)


def _log(database: Database, target: TestedSubscription, outcome: Outcome) -> Logged:
    with database.transaction() as connection:
        return log_test(connection, target, outcome)


async def check_endpoint(
    database: Database,
    tenant: str | None,
    subscription_id: UUID | str,
    *,
    network: Callable[[Config], Network] = network_of,
    meanwhile: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> CheckedEndpoint:
    """Inspect everything between here and the endpoint, send no byte of HTTP, and return the steps.

    `network` and `meanwhile` are those of `send_test`. Raises NotFoundError when there is no such subscription for this
    tenant, or it is removed.
    """
    target = await to_thread.run_sync(_read, database, tenant, subscription_id)
    seconds = float(target.subscription.timeout_seconds)
    endpoint, before, findings = _open_secrets(database.config, target)
    async with meanwhile():
        found = [] if endpoint is None else await _inspect(database.config, endpoint, seconds, network)
    if not findings:
        findings = diagnosis.of_steps(target.id, parse_url(target.subscription.url), found, seconds)
    steps = (before, *map(CheckedStep.of, found))
    return CheckedEndpoint(
        subscription_id=target.id,
        url=target.shown_url,
        ok=all(step.state != "failed" for step in steps),
        hindrance=target.hindrance,
        steps=steps,
        findings=findings,
    )


def _read(database: Database, tenant: str | None, subscription_id: UUID | str) -> TestedSubscription:
    with database.transaction() as connection:
        return read_subscription(connection, tenant, subscription_id)


def _open_secrets(
    config: Config, target: TestedSubscription
) -> tuple[Endpoint | None, CheckedStep, tuple[Finding, ...]]:
    """Open the secrets; return the endpoint, the step, and findings where they cannot be opened.

    The endpoint is None where the URL cannot be read.
    """
    subscription = target.subscription
    try:
        endpoint = Envelope(subscription, Keyring(config.secret_key)).endpoint
    except OutboxError as error:
        return _explain_unopened(target, error)
    kinds = Counter(kind for kind, _ in subscription.secrets)
    named = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in kinds.items())
    return endpoint, CheckedStep(name="secrets", state="ok", text=f"can be opened: {named}"), ()


def _explain_unopened(
    target: TestedSubscription, error: OutboxError
) -> tuple[Endpoint | None, CheckedStep, tuple[Finding, ...]]:
    try:
        endpoint = Endpoint.of(target.subscription.url)
    except OutboxError:
        failed = CheckedStep(name="url", state="failed", text=str(error))
        return None, failed, diagnosis.of_error(target.id, "url.refused", error)
    failed = CheckedStep(name="secrets", state="failed", text=str(error))
    return endpoint, failed, diagnosis.of_error(target.id, "secrets.unopened", error)


async def _inspect(
    config: Config, endpoint: Endpoint, seconds: float, network: Callable[[Config], Network]
) -> list[Step]:
    out = network(config)
    try:
        return await out.inspect_way(endpoint, seconds)
    finally:
        await out.sender.close()


@dataclass(frozen=True)
class _Sent:
    outcome: Outcome
    request: SentRequest | None
    steps: list[Step]
    findings: tuple[Finding, ...]


async def _send(config: Config, target: TestedSubscription, event: EventParts, out: Network) -> _Sent:
    subscription = target.subscription
    try:
        envelope = Envelope(subscription, Keyring(config.secret_key))
    except OutboxError as error:
        unavailable = isinstance(error, KeyUnavailableError)
        kind = OutcomeKind.KEY_UNAVAILABLE if unavailable else OutcomeKind.UNSENDABLE
        outcome = Outcome(kind, None, 0, str(error), sent=False)
        return _Sent(outcome, None, [], diagnosis.of_error(target.id, f"message.{kind}", error))
    recorder, seconds = Recorder(out.sender), float(subscription.timeout_seconds)
    try:
        outcome = await envelope.send(recorder, envelope.transform(event), b"%d" % target.unix_seconds, seconds)
    except TransformationError as error:
        outcome = Outcome(OutcomeKind.TRANSFORMATION_FAILED, None, 0, f"transformation: {error}", sent=False)
    request = recorder.request(envelope.endpoint, target.shown_url, envelope.secrets)
    steps = await _inspect_after_failure(out, envelope.endpoint, outcome, seconds) if request else []
    return _Sent(outcome, request, steps, _findings(target, envelope.endpoint, outcome, steps))


_OF_THE_WAY = (
    OutcomeKind.DNS,
    OutcomeKind.BLOCKED_ADDRESS,
    OutcomeKind.REFUSED,
    OutcomeKind.TIMEOUT,
    OutcomeKind.CONNECTION,
    OutcomeKind.TLS,
)


async def _inspect_after_failure(out: Network, endpoint: Endpoint, outcome: Outcome, seconds: float) -> list[Step]:
    """Inspect the way where the message did not get through: what failed is then told as `check` tells it."""
    if outcome.kind not in _OF_THE_WAY or (outcome.kind == OutcomeKind.TIMEOUT and outcome.sent):
        return []
    return await out.inspect_way(endpoint, min(seconds, MOST_INSPECT_SECONDS))


def _findings(
    target: TestedSubscription, endpoint: Endpoint, outcome: Outcome, steps: Sequence[Step]
) -> tuple[Finding, ...]:
    seconds = float(target.subscription.timeout_seconds)
    if any(step.state == "failed" for step in steps):
        return diagnosis.of_steps(target.id, endpoint.url, steps, seconds)
    found = diagnosis.of_outcome(target.id, endpoint.url, outcome, seconds)
    return (*found, diagnosis.open_again(target.id)) if steps and not outcome.sent else found


def _sent_test(target: TestedSubscription, logged: Logged, sent: _Sent) -> SentTest:
    outcome = sent.outcome
    return SentTest(
        subscription_id=target.id,
        delivery_id=logged.delivery_id,
        at=logged.at,
        ok=outcome.kind == "delivered",
        sent=outcome.sent,
        outcome=outcome.kind,
        status=outcome.status,
        milliseconds=outcome.milliseconds,
        error=outcome.error,
        address=outcome.address,
        hindrance=target.hindrance,
        request=sent.request,
        response=response_of(outcome),
        steps=tuple(map(CheckedStep.of, sent.steps)),
        findings=sent.findings,
    )
