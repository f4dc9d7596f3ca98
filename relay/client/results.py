"""Results that are no document of operations: what a change by hand did, and a subscription with its version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from outbox.control.replay.replay import Matching
    from outbox.ids import DeliveryId, SubscriptionId
    from outbox.subscriptions import Subscription
    from relay.operations.status.breakers import Breaker
    from relay.operations.status.documents import SubscriptionHealth
    from relay.operations.tokens import Right

__all__ = [
    "Cancelled", "Health", "OwnToken", "Purged", "ReadSubscription", "Replayed", "Retried", "RevokedLinks",
    "SetLimit",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSubscription:
    """A subscription, its breaker, and its version: give `etag` to what changes it, '' where it came in a list."""

    subscription: Subscription
    breaker: Breaker
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What waits for a subscription, how its last attempt went, and its breaker."""

    backlog: SubscriptionHealth
    breaker: Breaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """What is due now, or would be; `not_sendable` are subscriptions on which it waits all the same."""

    count: int
    deliveries: tuple[DeliveryId, ...]
    not_sendable: tuple[SubscriptionId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What is cancelled, or would be; requests for `leased` ones may still arrive."""

    count: int
    deliveries: tuple[DeliveryId, ...]
    leased: tuple[DeliveryId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What is put back, or would be; `resolve_again` are events that go back to pending.

    matching: how many pass the filter; None where ids were given.
    """

    count: int
    matching: Matching | None
    deliveries: tuple[DeliveryId, ...]
    subscriptions: tuple[SubscriptionId, ...]
    resolve_again: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """How many dead letters are deleted, or would be."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLimit:
    """The limit of a tenant; None where it has none."""

    tenant: str
    rate_limit: str | None
    rate_burst: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedLinks:
    """How many links into the portal and sessions ended."""

    revoked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnToken:
    """What the token of a call is, and may do."""

    id: str
    name: str
    tenant: str | None
    rights: tuple[Right, ...]
    expires_at: datetime | None
