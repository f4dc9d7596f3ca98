"""Events: what was recorded, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.attempts import Attempt, attempts_of_event
from outbox.control.dead_letters import DeadDelivery, dead_of_event
from outbox.control.deliveries import ListedDelivery, outstanding_of_event
from outbox.control.event_documents import Counts, ListedEvent, RecordedEvent, counts_of, event_fields, event_state
from outbox.control.event_walk import LOOK_BACK, STATES, EventState, list_events
from outbox.control.fates import fates
from outbox.control.pages import Page
from outbox.control.tenancy import own
from outbox.errors import NotFoundError
from outbox.ids import EventId

__all__ = [
    "STATES",
    "Counts",
    "EventDetails",
    "EventState",
    "ListedEvent",
    "RecordedEvent",
    "Resolution",
    "event_state",
    "list_events",
    "show_event",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """When an event was resolved, and how many subscriptions it matched."""

    at: datetime
    matched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDetails(RecordedEvent):
    """An event with all that happened to it; `counts` as in a list.

    The payload is JSON text; each list is its first page. `trace` has the W3C headers of the trace that the event was
    recorded in, by name; `metadata` is as it was recorded.
    """

    counts: Counts
    resolution: Resolution | None
    deliveries: Page[ListedDelivery]
    attempts: Page[Attempt]
    dead_letters: Page[DeadDelivery]
    trace: dict[str, str] | None
    metadata: dict[str, str] | None
    payload: str


_RESOLVED = """
select exists (select from outbox.pending p where p.event_seq = e.seq) as pending,
       (select r.matches[array_position(r.seqs, e.seq)] from (
            select seqs, matches, at from outbox.resolutions where first_seq <= e.seq
            order by first_seq desc limit :look_back) r
        where e.seq = any(r.seqs) order by r.at desc limit 1) as matched"""
_EVENT = f"""
with e as materialized (
    select * from (
        select seq, id, type, tenant, key, recorded_at, available_at, priority, trace, metadata, payload, true as kept
        from outbox.events
        where id = :id
        union all
        (select event_seq, event_id, type, tenant, key, recorded_at, null, null, null, metadata, payload, false
         from outbox.dead_letters where event_id = :id limit 1)
        limit 1) e
    where {own("e.tenant")})
select e.*, r.* from e cross join lateral ({_RESOLVED}) r
"""  # noqa: S608 - the parts are constants


def show_event(connection: Connection, tenant: str | None, event_id: UUID | str) -> EventDetails:
    """Return one event with its payload, resolution, deliveries, attempts and dead letters.

    Raises NotFoundError when it is none of this tenant's, was never recorded, or is past its retention.
    """
    uuid = EventId.of(event_id)
    parameters = {"id": uuid, "asking": tenant, "look_back": LOOK_BACK}
    row = connection.execute(text(_EVENT), parameters).one_or_none()
    if row is None:
        raise NotFoundError(f"event: no {uuid}; never recorded, or pruned after its retention")
    resolution = _resolution(connection, row.seq)
    (fate,) = fates(connection, {row.seq: row.id})
    counts = counts_of(row, resolution.matched if resolution else None, fate)
    return EventDetails(
        **event_fields(row, counts),
        counts=counts,
        resolution=resolution,
        deliveries=outstanding_of_event(connection, tenant, uuid),
        attempts=attempts_of_event(connection, tenant, uuid),
        dead_letters=dead_of_event(connection, tenant, uuid),
        trace=_trace(row.trace),
        metadata=row.metadata,
        payload=row.payload,
    )


def _trace(kept: str | None) -> dict[str, str] | None:
    """Return the lines of a trace by the names of their headers."""
    if kept is None:
        return None
    names = ("traceparent", "tracestate", "baggage")
    return {name: line for name, line in zip(names, kept.split("\n"), strict=False) if line}


# Of the batches that begin just before it, the last one that names it; of all of them where none does.
_RESOLUTION = """
select at, matches[array_position(seqs, cast(:seq as bigint))] as matched from (
    select at, seqs, matches from outbox.resolutions where first_seq <= :seq
    order by first_seq desc limit cast(:look_back as bigint)) newest
where :seq = any(seqs) order by at desc limit 1
"""


def _resolution(connection: Connection, seq: int) -> Resolution | None:
    """Return how the event was resolved last: nearly always in a batch that began just before it."""
    for look_back in (LOOK_BACK, None):
        bound = {"seq": seq, "look_back": look_back}
        if (row := connection.execute(text(_RESOLUTION), bound).one_or_none()) is not None:
            return Resolution(at=row.at, matched=row.matched)
    return None
