"""The part of a subscription that sending needs. A field has the name of the column that it is read from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outbox.secret import Secret

__all__ = ["SUBSCRIPTION_COLUMNS", "SubscriptionVersion", "TenantLimit"]


class TenantLimit(NamedTuple):
    """The limit that a tenant's subscriptions share; `id` is that of its cell."""

    id: bytes
    rate_limit: str
    rate_burst: int | None


@dataclass(frozen=True, slots=True)
class SubscriptionVersion:
    """The part of a subscription that sending needs, at one version of its row."""

    id: bytes
    version: int
    url: str
    timeout_seconds: int
    schedule_seconds: tuple[int, ...]
    scheme: str
    final_statuses: tuple[int, ...]
    secrets: tuple[tuple[str, Secret], ...]  # kind and text, sealed or in clear; newest first
    tenant: str = ""
    transformation: str | None = None
    sendable_in_seconds: float = 0.0  # 0: now; inf: paused, disabled, removed or held for good
    held_for_good: bool = False  # held back until infinity, which no receiver can ask for: somebody wrote it
    format: str = "standard"
    format_settings: Mapping[str, Any] = field(default_factory=dict)
    rate_limit: str | None = None
    rate_burst: int | None = None
    max_in_flight: int | None = None
    slowed_to: float | None = None  # requests a second, where its receiver asked for fewer a short time ago
    tenant_limit: TenantLimit | None = None
    order_policy: str = "block"
    batch_events: int | None = None  # in one request at most; None: each event goes alone
    batch_milliseconds: int = 1000
    health: str = ""  # 'open': its breaker is; 'noted': failures are noted of it

    def __repr__(self) -> str:
        return f"SubscriptionVersion(id={self.id.hex()}, version={self.version})"


_FROM_ELSEWHERE = ("secrets", "sendable_in_seconds", "held_for_good", "slowed_to", "tenant_limit", "health")
SUBSCRIPTION_COLUMNS = tuple(one.name for one in fields(SubscriptionVersion) if one.name not in _FROM_ELSEWHERE)
"""What is read from outbox.subscriptions, in this order."""
