"""What is told of an event: itself, counts of its subscriptions, and one word for what became of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from outbox.control.fates import Fates
from outbox.ids import EventId

__all__ = ["Counts", "ListedEvent", "RecordedEvent", "counts_of", "event_fields", "event_state", "listed_event"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event and the one word for what became of it. `available_at` and `priority` are None past its retention."""

    id: EventId
    type: str
    tenant: str
    key: str | None
    recorded_at: datetime
    available_at: datetime | None
    priority: int | None
    state: str


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many of an event's subscriptions are in which state, the operator's among them; see outbox.control.fates.

    `matched` is None before it is resolved, `cancelled` also where nothing kept can tell it.
    """

    matched: int | None
    delivered: int
    outstanding: int
    dead: int
    purged: int
    cancelled: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEvent(Counts, RecordedEvent):
    """An event with counts of its subscriptions."""


_COUNTS = tuple(field.name for field in fields(Counts))


def listed_event(row: Any, fate: Fates) -> ListedEvent:
    """Return an event of a list from its row, with `pending`, `matched` and `kept`, and what became of it."""
    counts = counts_of(row, row.matched, fate)
    return ListedEvent(**event_fields(row, counts), **{name: getattr(counts, name) for name in _COUNTS})


def counts_of(row: Any, matched: int | None, fate: Fates) -> Counts:
    """Return how many of its subscriptions are in which state."""
    return Counts(
        matched=matched,
        delivered=fate.delivered,
        outstanding=fate.outstanding,
        dead=fate.dead,
        purged=fate.purged,
        cancelled=None if row.pending or not row.kept else fate.cancelled(matched),
    )


def event_fields(row: Any, counts: Counts) -> dict[str, Any]:
    """Return the fields of a RecordedEvent."""
    return {
        "id": EventId.of(row.id),
        "type": row.type,
        "tenant": row.tenant,
        "key": row.key,
        "recorded_at": row.recorded_at,
        "available_at": row.available_at,
        "priority": row.priority,
        "state": event_state(pending=row.pending, **{name: getattr(counts, name) for name in _COUNTS}),
    }


def event_state(
    *,
    pending: bool,
    matched: int | None,
    delivered: int,
    dead: int,
    outstanding: int,
    purged: int = 0,
    cancelled: int | None = 0,
) -> str:
    """Return the one word for an event, the most urgent first.

    pending (not resolved yet), dead (at least one dead letter), under_way, unmatched (no subscriber), delivered,
    partly_delivered (to some; the others are cancelled or purged), cancelled (its subscriptions were removed), unknown
    (the record is past its retention).
    """
    if pending:
        return "pending"
    if dead:
        return "dead"
    if outstanding:
        return "under_way"
    if delivered:
        return "partly_delivered" if cancelled or purged else "delivered"
    return {None: "unknown", 0: "unmatched"}.get(matched, "cancelled")
