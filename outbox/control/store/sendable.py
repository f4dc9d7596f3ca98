"""Which subscriptions events match, and which may be sent to now: conditions of SQL, for relays and people alike."""

from __future__ import annotations

__all__ = ["BROKEN", "MATCHED", "NOT_HELD", "PROBED", "SENDABLE", "WANTED"]

WANTED = "paused_at is null and disabled_at is null and removed_at is null and sorting_since is null"
NOT_HELD = "coalesce(held_until <= clock_timestamp(), true)"
# health has no column id: it is that of the subscription that the condition is asked of.
BROKEN = "exists (select from outbox.health where subscription_id = id and opened_at is not null)"
SENDABLE = f"{WANTED} and {NOT_HELD} and not {BROKEN}"
"""The condition that a subscription may be sent to now. Nothing else is claimed, so nothing else counts attempts."""
PROBED = f"{WANTED} and {NOT_HELD} and {BROKEN[:-1]} and probe_at <= clock_timestamp())"
"""The condition that a subscription is not sendable, but that one delivery may be sent to it now."""
MATCHED = "not (paused_at is not null and drops_while_paused)"
"""The condition that events match a subscription at all; removed ones are in no index of types."""
