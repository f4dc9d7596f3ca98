"""What status returns: counts, and whoever needs a person. Names ending in `_seconds` are lengths of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from outbox.control.findings import Finding
    from outbox.ids import DeliveryId, EventId, SubscriptionId
    from relay.operations.adoption import Home
    from relay.operations.secrets import SecretsAtRest
    from relay.operations.sending_switch import Sending
    from relay.operations.status.breakers import Breakers
    from relay.operations.status.running import Running
    from relay.operations.status.unmatched_events import Unmatched

__all__ = [
    "CANCELLED_DAYS", "Attempts", "BlockedLane", "Count", "DeadLetters", "Deliveries", "DisabledSubscription",
    "FailedAttempt", "HeldSubscription", "Limits", "Named", "Newest", "PausedSubscription", "Pending",
    "Settings", "SlowedSubscription", "SortingSubscription", "Status", "StuckSubscription", "SubscriptionHealth",
    "Subscriptions", "Unresolved",
]  # fmt: skip

CANCELLED_DAYS = 7

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Count:
    """A number of rows: exact, or at least so many where counting stopped, or else the planner's estimate."""

    value: int
    exact: bool
    at_least: bool = False

    def __str__(self) -> str:
        if self.at_least:
            return f"{self.value:,} or more"
        return f"{self.value:,}" if self.exact else f"~{self.value:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Events that wait to be resolved, and for how long the oldest of them does."""

    count: Count
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """Outstanding deliveries by state.

    `open` and `closed`: what of `due` is for sendable subscriptions, and for paused, disabled, held and failing ones.
    The words are those of 0.1.0, kept because programs read them; they are no states of a breaker. `leased` are being
    sent. `left`: leased by relays that are gone, free when the lease ends. `ended`: their lease has ended, and they are
    claimed again in their turn. `parked` ones wait behind another of their key.
    """

    due: Count
    open: Count
    closed: Count
    waiting: Count
    parked: Count
    leased: Count
    left: Count
    ended: Count
    oldest_due_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetters:
    """Dead letters, and of the newest ten thousand how many died of which reason."""

    count: Count
    newest_at: datetime | None
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """When the last attempt was, and the last delivered one among the newest thousands."""

    last_at: datetime | None
    last_delivered_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unresolved:
    """How many of the newest events are neither pending nor resolved, and the oldest three of them."""

    of_last: int
    count: int
    events: tuple[EventId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriptions:
    """Subscriptions by state; `every_tenant` see every tenant's events, `unsigned` get requests without a signature.

    `dropping`: of all but removed ones, those that are paused and match no event meanwhile.
    """

    active: int
    paused: int
    dropping: int
    disabled: int
    removed: int
    every_tenant: int
    unsigned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionHealth:
    """What waits for one subscription (each counted up to 1,001), and how its last attempt went.

    `held_seconds`: how long its receiver's Retry-After holds it back yet; None when it does not.
    """

    due: int
    outstanding: int
    dead: int
    held_seconds: float | None
    last_attempt_at: datetime | None
    last_outcome: str | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A subscription that is named, and how it is. `name` is the one that a person gave it, None where nobody did."""

    subscription_id: SubscriptionId
    url: str
    tenant: str
    health: SubscriptionHealth
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DisabledSubscription(Named):
    """A subscription that is disabled, since when and why."""

    disabled_at: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedSubscription(Named):
    """A subscription that is paused; `drops`: what comes meanwhile does not match it.

    `by`: who paused it by the audit: what they said of themselves, or else their role. `description`: the
    subscription's. `oldest_seconds`: for how long the oldest delivery has been due, None where none is.
    """

    drops: bool
    paused_at: datetime | None = None
    by: str = ""
    description: str = ""
    oldest_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSubscription(Named):
    """A subscription that its receiver's Retry-After holds back for long, and until when; that may just have passed."""

    held_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowedSubscription(Named):
    """A subscription whose receiver refused some requests: how many a second it is sent now, and its limits."""

    slowed_to: float
    rate_limit: str | None
    max_in_flight: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """The last attempt of a delivery that waits for its next one: when it was, and how it failed."""

    delivery_id: DeliveryId
    at: datetime
    outcome: str
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckSubscription(Named):
    """A subscription that is behind, or failing where `behind_seconds` is None.

    `retries`: how many of the 2,000 deliveries that are due next are retries of it; `failed`: how one of them failed.
    """

    behind_seconds: float | None
    retries: int = 0
    failed: FailedAttempt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SortingSubscription:
    """A subscription whose backlog is put in order, since order was switched on; nothing is sent to it meanwhile."""

    subscription_id: SubscriptionId
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedLane:
    """A key of an ordered subscription whose head fails while others wait behind it (counted up to 1,001).

    `head` is the delivery to look at, made of the event `event_id`; `since` is its first attempt that is kept.
    """

    subscription_id: SubscriptionId
    url: str
    tenant: str
    key: str | None
    head: DeliveryId
    event_id: EventId | None
    attempts: int
    since: datetime | None
    next_at: datetime
    behind: int
    last_error: str | None
    order_policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest(Generic[T]):
    """How many there are, and those that matter most."""

    count: int
    named: tuple[T, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many subscriptions and tenants have a limit, and who is slowed to what its receiver takes."""

    rates: int
    caps: int
    tenants: int
    slowed: Newest[SlowedSubscription]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the server that durability rests on."""

    fsync: str
    synchronous_commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of everything, and what of it a person should look at, the worst first.

    `cancelled`: deliveries that were cancelled by hand within CANCELLED_DAYS.
    """

    at: datetime
    sending: Sending
    home: Home
    schema_version: int
    running: Running
    pending: Pending
    deliveries: Deliveries
    dead_letters: DeadLetters
    cancelled: int
    attempts: Attempts
    unmatched: Unmatched
    unresolved: Unresolved
    subscriptions: Subscriptions
    disabled: Newest[DisabledSubscription]
    paused: Newest[PausedSubscription]
    held: Newest[HeldSubscription]
    limits: Limits
    breakers: Breakers
    default_leaves: Mapping[str, Count]
    secrets: SecretsAtRest
    settings: Settings
    stuck: tuple[StuckSubscription, ...]
    blocked_lanes: tuple[BlockedLane, ...]
    sorting: tuple[SortingSubscription, ...]
    findings: tuple[Finding, ...]
