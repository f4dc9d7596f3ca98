"""What of a status a person should look at, the worst first. Pure: nothing is asked of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.operations.findings import Finding
from relay.operations.status.late_subscriptions import LATE_SECONDS
from relay.operations.status.unresolved_events import sql_to_mend
from relay.operations.times import duration, utc, who_held

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from relay.operations.secrets import SecretsAtRest
    from relay.operations.status.documents import (
        Count,
        DeadLetters,
        DisabledSubscription,
        HeldSubscription,
        Newest,
        Pending,
        Settings,
        Status,
        StuckSubscription,
        SubscriptionHealth,
        Unresolved,
    )

__all__ = ["findings_of"]


def findings_of(status: Status) -> tuple[Finding, ...]:
    """Return what a person should look at."""
    return (
        *_of_unresolved(status.unresolved),
        *_of_settings(status.settings),
        *_of_pending(status.pending, status.relay_connections),
        *map(_of_stuck, status.stuck),
        *_of_disabled(status.disabled),
        *_of_held(status.held, status.at),
        *_of_dead_letters(status.dead_letters),
        *_of_secrets(status.secrets),
        *_of_leaves(status.default_leaves),
    )


def _of_unresolved(unresolved: Unresolved) -> list[Finding]:
    if not unresolved.count:
        return []
    seen = (
        f"{unresolved.count:,} of the last {unresolved.of_last:,} events are neither pending nor resolved, nobody will "
        "send them"
    )
    sql = f"as outbox_operator: {sql_to_mend(unresolved.events)}"
    return [Finding(code="events.unresolved", subject="events", seen=seen, mend=sql)]


def _of_settings(settings: Settings) -> list[Finding]:
    found = []
    if settings.fsync == "off":
        seen = "fsync is off on the server: a crash can lose committed events"
        found.append(Finding(code="settings.fsync", subject="fsync", seen=seen, mend="set fsync = on"))
    if settings.synchronous_commit == "off":
        seen = "synchronous_commit is off: a crash can lose events that were committed just before"
        found.append(Finding(code="settings.synchronous_commit", subject="synchronous_commit", seen=seen))
    return found


def _of_pending(pending: Pending, relay_connections: int) -> list[Finding]:
    if pending.oldest_seconds is None or pending.oldest_seconds <= LATE_SECONDS:
        return []
    mend = "a relay is connected, look at its log" if relay_connections else "is `relay run` running?"
    seen = f"events wait {duration(pending.oldest_seconds)} to be resolved"
    return [Finding(code="events.late", subject="events", seen=seen, mend=mend)]


def _of_stuck(item: StuckSubscription) -> Finding:
    why = item.health.last_error or item.health.last_outcome or "not attempted yet"
    why = "it takes less than it gets" if why == "delivered" else why
    if item.behind_seconds is None:
        seen = f"{item.subscription_id} is failing, retries wait: {why}"
        return Finding(code="subscription.failing", subject=item.subscription_id, seen=seen)
    seen = f"{item.subscription_id} is behind by {duration(item.behind_seconds)}: {why}"
    return Finding(code="subscription.behind", subject=item.subscription_id, seen=seen)


def _of_disabled(disabled: Newest[DisabledSubscription]) -> list[Finding]:
    found = [
        Finding(
            code="subscription.disabled",
            subject=item.subscription_id,
            seen=f"{item.subscription_id} is disabled since {utc(item.disabled_at)}: {item.reason};"
            f" {_waiting(item.health)}",
            mend=f"relay subscriptions resume {item.subscription_id}",
        )
        for item in disabled.named
    ]
    if disabled.count > len(disabled.named):
        seen, mend = f"{disabled.count:,} subscriptions are disabled", "relay subscriptions list --state disabled"
        found.append(Finding(code="subscriptions.disabled", subject="subscriptions", seen=seen, mend=mend))
    return found


def _of_held(held: Newest[HeldSubscription], at: datetime) -> list[Finding]:
    return [
        Finding(
            code="subscription.held",
            subject=item.subscription_id,
            seen=f"{item.subscription_id} is held until {utc(item.held_until)}"
            f" {who_held((item.held_until - at).total_seconds())}; {_waiting(item.health)}",
        )
        for item in held.named
        if item.health.outstanding
    ]


def _waiting(health: SubscriptionHealth) -> str:
    outstanding = health.outstanding
    return f"{outstanding:,} deliveries wait" if outstanding <= 1000 else "more than 1,000 deliveries wait"


def _of_dead_letters(dead: DeadLetters) -> list[Finding]:
    if not dead.count.value:
        return []
    seen, mend = f"{dead.count} dead letters wait for a person", "relay dead-letters list"
    return [Finding(code="dead_letters.waiting", subject="dead_letters", seen=seen, mend=mend)]


def _of_secrets(secrets: SecretsAtRest) -> list[Finding]:
    clear, older, key = secrets.in_clear, secrets.sealed_to_older_keys, secrets.sealing_key
    found = []
    if clear and key:
        seen = f"{clear:,} secrets lie in clear; a relay that holds key {key} seals them within a minute"
        found.append(Finding(code="secrets.in_clear", subject="secrets", seen=seen))
    elif clear:
        mend = "relay secrets keygen, give the key to relays, relay secrets rekey"
        seen = f"{clear:,} secrets lie in clear"
        found.append(Finding(code="secrets.in_clear", subject="secrets", seen=seen, mend=mend))
    if older:
        seen = f"{older:,} secrets are sealed to another key than the newest, {key}"
        found.append(Finding(code="secrets.older_key", subject="secrets", seen=seen, mend="relay secrets rekey"))
    return found


def _of_leaves(default_leaves: Mapping[str, Count]) -> list[Finding]:
    return [
        Finding(
            code="leaves.default",
            subject=name,
            seen=f"{count} rows of {name} are in the default leaf: partitions were not made in time; they stay usable",
        )
        for name, count in default_leaves.items()
        if count.value
    ]
