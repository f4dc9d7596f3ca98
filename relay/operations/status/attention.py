"""What of a status a person should look at, the worst first. Pure: nothing is asked of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.control.findings import Finding
from outbox.control.times import duration, utc, who_held
from relay.operations.status.breakers import findings_of_breakers
from relay.operations.status.late_subscriptions import LATE_SECONDS
from relay.operations.status.running_findings import findings_of_running, place_of
from relay.operations.status.unresolved_events import sql_to_mend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from relay.operations.adoption import Home
    from relay.operations.secrets import SecretsAtRest
    from relay.operations.sending import Sending
    from relay.operations.status.documents import (
        BlockedLane,
        Count,
        DeadLetters,
        DisabledSubscription,
        HeldSubscription,
        Newest,
        PausedSubscription,
        Pending,
        Settings,
        SortingSubscription,
        Status,
        StuckSubscription,
        SubscriptionHealth,
        Subscriptions,
        Unresolved,
    )
    from relay.operations.status.running import RelayProcess

__all__ = ["findings_of"]


def findings_of(status: Status) -> tuple[Finding, ...]:
    """Return what a person should look at."""
    alive = status.running.alive
    sends = alive and not status.sending.is_paused and not status.home.is_copied
    return (
        *_of_home(status.home),
        *_of_sending(status.sending),
        *findings_of_running(status.running, _what_waits(status)),
        *_of_unresolved(status.unresolved),
        *_of_settings(status.settings),
        *_of_pending(status.pending, alive),
        *(_of_stuck(item, status.at) for item in status.stuck if sends or item.behind_seconds is None),
        *(_of_blocked(item, status.at) for item in status.blocked_lanes),
        *(_of_sorting(item, status.at) for item in status.sorting),
        *_of_disabled(status.disabled),
        *map(_of_paused, status.paused.named),
        *_of_more_paused(status.paused),
        *_of_held(status.held, status.at),
        *findings_of_breakers(status.breakers, status.at),
        *_of_dead_letters(status.dead_letters),
        *_of_secrets(status.secrets),
        *_of_unsigned(status.subscriptions),
        *_of_leaves(status.default_leaves),
    )


def _of_home(home: Home) -> list[Finding]:
    """A copy of a database sends nothing: that is why everything is behind."""
    if not home.is_copied:
        return []
    was = " and ".join(home.elsewhere)
    seen = f"this database is a copy, and nothing is sent from it: it was at home as {was}, and is {home.here} now"
    mend = "relay adopt, if its events are to be sent from here"
    return [Finding(code="database.copied", subject="database", seen=seen, mend=mend)]


def _of_sending(sending: Sending) -> list[Finding]:
    """Where a person stopped all sending, that is why everything is behind."""
    if sending.paused_at is None:
        return []
    who = f" by {sending.actor}" if sending.actor else ""
    why = f": {sending.reason}" if sending.reason else ""
    seen = f"all sending is paused since {utc(sending.paused_at)}{who}{why}"
    return [Finding(code="sending.paused", subject="sending", seen=seen, mend="relay resume-all")]


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


def _what_waits(status: Status) -> str:
    """Return in words what a relay would do if one ran; empty where that is nothing."""
    pending, deliveries = status.pending, status.deliveries
    parts = []
    if pending.count.value:
        events = "1 event waits" if str(pending.count) == "1" else f"{pending.count} events wait"
        parts.append(f"{events} to be resolved{_longest(pending.oldest_seconds)}")
    if deliveries.open.value:
        due = "1 delivery is" if str(deliveries.open) == "1" else f"{deliveries.open} deliveries are"
        parts.append(f"{due} due{_longest(deliveries.oldest_due_seconds)}")
    later = deliveries.waiting.value + deliveries.leased.value + deliveries.left.value + deliveries.ended.value
    return ", ".join(parts) or ("deliveries wait for their time" if later else "")


def _longest(seconds: float | None) -> str:
    return "" if seconds is None else f", the oldest for {duration(seconds)}"


def _of_pending(pending: Pending, alive: tuple[RelayProcess, ...]) -> list[Finding]:
    """Where no relay runs, that is the finding."""
    if not alive or pending.oldest_seconds is None or pending.oldest_seconds <= LATE_SECONDS:
        return []
    seen = f"events wait {duration(pending.oldest_seconds)} to be resolved, though a relay runs"
    mend = f"look at the log of {place_of(alive[0])}"
    return [Finding(code="events.late", subject="events", seen=seen, mend=mend)]


def _of_stuck(item: StuckSubscription, at: datetime) -> Finding:
    why = item.health.last_error or item.health.last_outcome or "not attempted yet"
    if why == "delivered" and item.health.last_attempt_at is not None:
        why = f"its last attempt, {duration((at - item.health.last_attempt_at).total_seconds())} ago, was delivered"
    if item.behind_seconds is None:
        seen = f"{item.subscription_id} is failing, retries wait: {why}"
        return Finding(code="subscription.failing", subject=item.subscription_id, seen=seen, severity="note")
    seen = f"{item.subscription_id} is behind by {duration(item.behind_seconds)}: {why}"
    return Finding(code="subscription.behind", subject=item.subscription_id, seen=seen)


def _of_blocked(item: BlockedLane, at: datetime) -> Finding:
    """Return what blocks a key. It ends by itself where the policy is to skip."""
    since = f" for {duration((at - item.since).total_seconds())}" if item.since else ""
    waiting = "1,000 or more wait" if item.waiting > 1000 else f"{item.waiting:,} wait{'s' * (item.waiting == 1)}"
    key = "" if item.key is None else f" of key {item.key!r}"
    skips = item.order_policy == "skip"
    return Finding(
        code="lane.blocked",
        subject=item.subscription_id,
        seen=f"{item.subscription_id}: {item.head}{key} fails{since}, {item.attempts} attempts, {waiting} behind it:"
        f" {item.last_error or 'no error is kept'}",
        mend=f"relay deliveries show {item.head}; mend its receiver"
        + (
            ""
            if skips
            else f", or relay deliveries cancel {item.head}, or relay subscriptions update"
            f" {item.subscription_id} --order-policy skip"
        ),
        severity="note" if skips else "problem",
    )


def _of_sorting(item: SortingSubscription, at: datetime) -> Finding:
    took = (at - item.since).total_seconds()
    return Finding(
        code="subscription.sorting",
        subject=item.subscription_id,
        seen=f"{item.subscription_id}: its backlog is put in order for {duration(took)}, nothing is sent meanwhile",
        mend="" if took < LATE_SECONDS else "see that a relay runs, and that no delivery of it is leased for ever",
        severity="note",
    )


def _of_paused(item: PausedSubscription) -> Finding:
    dropping = " and drops what comes" if item.drops else ""
    return Finding(
        code="subscription.paused",
        subject=item.subscription_id,
        seen=f"{item.subscription_id} is paused{dropping}; {_waiting(item.health)}",
        mend=f"relay subscriptions resume {item.subscription_id}",
        severity="problem" if item.health.outstanding else "note",
    )


def _of_more_paused(paused: Newest[PausedSubscription]) -> list[Finding]:
    if paused.count <= len(paused.named):
        return []
    seen = f"deliveries wait, or events are dropped, for {paused.count:,} paused subscriptions"
    mend = "relay subscriptions list --state paused"
    return [Finding(code="subscriptions.paused", subject="subscriptions", seen=seen, mend=mend)]


def _of_disabled(disabled: Newest[DisabledSubscription]) -> list[Finding]:
    found = [
        Finding(
            code="subscription.disabled",
            subject=item.subscription_id,
            seen=f"{item.subscription_id} is disabled since {utc(item.disabled_at)}: {item.reason};"
            f" {_waiting(item.health)}",
            mend=f"relay subscriptions resume {item.subscription_id}",
            severity="problem" if item.health.outstanding else "note",
        )
        for item in disabled.named
    ]
    if disabled.count > len(disabled.named):
        seen, mend = f"{disabled.count:,} subscriptions are disabled", "relay subscriptions list --state disabled"
        found.append(
            Finding(code="subscriptions.disabled", subject="subscriptions", seen=seen, mend=mend, severity="note")
        )
    return found


def _of_held(held: Newest[HeldSubscription], at: datetime) -> list[Finding]:
    return [_of_hold(item, (item.held_until - at).total_seconds()) for item in held.named if item.health.outstanding]


def _of_hold(item: HeldSubscription, seconds_left: float) -> Finding:
    """A receiver's hold ends by itself."""
    whose = who_held(seconds_left)
    return Finding(
        code="subscription.held",
        subject=item.subscription_id,
        seen=f"{item.subscription_id} is held until {utc(item.held_until)} {whose}; {_waiting(item.health)}",
        mend=f"relay subscriptions resume {item.subscription_id} ends the hold",
        severity="problem" if "by hand" in whose else "note",
    )


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
        found.append(Finding(code="secrets.in_clear", subject="secrets", seen=seen, severity="note"))
    elif clear:
        mend = "relay secrets keygen, give the key to relays, relay secrets rekey"
        seen = f"{clear:,} secrets lie in clear"
        found.append(Finding(code="secrets.in_clear", subject="secrets", seen=seen, mend=mend, severity="note"))
    if older:
        seen = f"{older:,} secrets are sealed to another key than the newest, {key}"
        mend = "relay secrets rekey"
        found.append(Finding(code="secrets.older_key", subject="secrets", seen=seen, mend=mend, severity="note"))
    return found


def _of_unsigned(subscriptions: Subscriptions) -> list[Finding]:
    if not subscriptions.unsigned:
        return []
    seen = f"{subscriptions.unsigned:,} subscriptions are unsigned: anyone can forge their requests"
    mend = "relay subscriptions list names them; relay subscriptions rotate-secret sub_… --scheme standard signs"
    return [Finding(code="subscriptions.unsigned", subject="subscriptions", seen=seen, mend=mend, severity="note")]


def _of_leaves(default_leaves: Mapping[str, Count]) -> list[Finding]:
    return [
        Finding(
            code="leaves.default",
            subject=name,
            seen=f"{count} rows of {name} are in the default leaf: partitions were not made in time; they stay usable",
            severity="note",
        )
        for name, count in default_leaves.items()
        if count.value
    ]
