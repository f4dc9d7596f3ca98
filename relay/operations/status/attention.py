"""What of a status a person should look at, the worst first. Pure: nothing is asked of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.control.findings import Action, Finding
from outbox.control.times import duration, utc
from relay.operations.status.breakers import findings_of_breakers
from relay.operations.status.late_subscriptions import LATE_SECONDS
from relay.operations.status.running_findings import findings_of_running, place_of
from relay.operations.status.subscription_findings import findings_of_subscriptions
from relay.operations.status.unmatched_events import findings_of_unmatched
from relay.operations.status.unresolved_events import sql_to_mend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.operations.adoption import Home
    from relay.operations.secrets import SecretsAtRest
    from relay.operations.sending_switch import Sending
    from relay.operations.status.documents import (
        Count,
        DeadLetters,
        Pending,
        Settings,
        Status,
        Subscriptions,
        Unresolved,
    )
    from relay.operations.status.running import RelayProcess

__all__ = ["findings_of", "is_sending"]


def is_sending(status: Status) -> bool:
    """Tell whether anything is sent at all: where nothing is, that is why endpoints are behind."""
    return bool(status.running.alive) and not status.sending.is_paused and not status.home.is_copied


def findings_of(status: Status) -> tuple[Finding, ...]:
    """Return what a person should look at."""
    alive = status.running.alive
    return (
        *_of_home(status.home),
        *_of_sending(status.sending),
        *findings_of_running(status.running, _what_waits(status)),
        *_of_unresolved(status.unresolved),
        *_of_settings(status.settings),
        *_of_pending(status.pending, alive),
        *findings_of_subscriptions(status, sends=is_sending(status)),
        *findings_of_breakers(status.breakers, status.at),
        *_of_dead_letters(status.dead_letters),
        *findings_of_unmatched(status.unmatched, status.at),
        *_of_secrets(status.secrets, alive),
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
    action = Action("findings", does="resume")
    return [Finding(code="sending.paused", subject="sending", seen=seen, mend="relay resume-all", action=action)]


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


def _of_dead_letters(dead: DeadLetters) -> list[Finding]:
    if not dead.count.value:
        return []
    seen = "1 dead letter waits" if str(dead.count) == "1" else f"{dead.count} dead letters wait"
    return [
        Finding(
            code="dead_letters.waiting",
            subject="dead_letters",
            seen=f"{seen} for a person",
            mend="relay dead-letters list",
            action=Action("dead_letters"),
        )
    ]


def _of_secrets(secrets: SecretsAtRest, alive: tuple[RelayProcess, ...]) -> list[Finding]:
    clear, older, key = secrets.in_clear, secrets.sealed_to_older_keys, secrets.sealing_key
    found = []
    if clear:
        seen, mend = _in_clear(f"{clear:,} secrets lie in clear", key, alive)
        found.append(Finding(code="secrets.in_clear", subject="secrets", seen=seen, mend=mend, severity="note"))
    if older:
        seen = f"{older:,} secrets are sealed to another key than the newest, {key}"
        mend = "relay secrets rekey"
        found.append(Finding(code="secrets.older_key", subject="secrets", seen=seen, mend=mend, severity="note"))
    return found


def _in_clear(seen: str, key: str | None, alive: tuple[RelayProcess, ...]) -> tuple[str, str]:
    """Return what is seen and its mend: what is missing is a key, or that a relay holds it, or that it is in use."""
    held = [key_id for relay in alive for key_id in relay.key_ids]
    if key and (key in held or not alive):
        return f"{seen}; a relay that holds key {key} seals them within a minute", ""
    if key:
        return f"{seen}, and no relay that runs holds key {key}, which seals them", "give its private half to a relay"
    if held:
        mend = "relay secrets rekey, where the relay's secret_key is set; from then on the relay seals by itself"
        return f"{seen}, though a relay holds key {held[0]}: secrets are not sealed to it yet", mend
    return seen, "relay secrets keygen, give the key to relays, relay secrets rekey"


def _of_unsigned(subscriptions: Subscriptions) -> list[Finding]:
    if not subscriptions.unsigned:
        return []
    seen = f"{subscriptions.unsigned:,} subscriptions are unsigned: anyone can forge their requests"
    mend = "relay subscriptions list names them; relay subscriptions rotate-secret sub_… --scheme standard signs"
    return [
        Finding(
            code="subscriptions.unsigned", subject="subscriptions", seen=seen, mend=mend, severity="note",
            action=Action("subscriptions"),
        )
    ]  # fmt: skip


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
