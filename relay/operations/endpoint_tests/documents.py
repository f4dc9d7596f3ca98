"""What a test message and a check return. No value of a credential is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from outbox.control.test_messages import ReceivedResponse, SentRequest

if TYPE_CHECKING:
    from datetime import datetime

    from outbox.control.findings import Finding
    from outbox.ids import DeliveryId, SubscriptionId
    from relay.http.inspection.certificate import Certificate
    from relay.http.inspection.steps import Step
    from relay.model.outcome import OutcomeKind

__all__ = ["CheckedEndpoint", "CheckedStep", "ReceivedResponse", "SentRequest", "SentTest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedStep:
    """One step to an endpoint: what was found in words, and for a step that failed why.

    `state` is 'warning' where a delivery would get past it. `addresses` are those that were found, or the one that the
    step is about.
    """

    name: str
    state: Literal["ok", "warning", "failed"]
    text: str
    cause: str | None = None
    addresses: tuple[str, ...] = ()
    milliseconds: int | None = None
    certificate: Certificate | None = None

    @classmethod
    def of(cls, step: Step) -> Self:
        """Return the step that the inspection took."""
        return cls(
            name=step.name,
            state=step.state,
            text=step.text,
            cause=step.cause,
            addresses=step.addresses,
            milliseconds=step.milliseconds,
            certificate=step.certificate,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SentTest:
    """A test message, what came of it and what that means; `hindrance` says why deliveries wait, if they do."""

    subscription_id: SubscriptionId
    delivery_id: DeliveryId
    at: datetime
    ok: bool
    sent: bool
    outcome: OutcomeKind
    status: int | None
    milliseconds: int
    error: str | None
    address: str | None
    hindrance: Finding | None
    request: SentRequest | None
    response: ReceivedResponse | None
    steps: tuple[CheckedStep, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedEndpoint:
    """The way to an endpoint, step by step, and what it means; `hindrance` says why deliveries wait, if they do."""

    subscription_id: SubscriptionId
    url: str
    ok: bool
    hindrance: Finding | None
    steps: tuple[CheckedStep, ...]
    findings: tuple[Finding, ...]
