"""Events: what was recorded, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.control.attempts import PAGE_ROWS, SEQ_OF_EVENT, Attempt, attempts_of_event
from outbox.control.deliveries import ListedDelivery, outstanding_of_event
from outbox.control.fates import fates
from outbox.control.filters import Filters
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import OWN_DEAD_LETTER, own
from outbox.errors import NotFoundError
from outbox.ids import DeliveryId, EventId, SubscriptionId

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from outbox.control.fates import Fates

__all__ = [
    "Counts", "DeadDelivery", "EventDetails", "ListedEvent", "RecordedEvent", "Resolution", "dead_of_event",
    "event_state", "list_events", "show_event",
]  # fmt: skip


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """When an event was resolved, and how many subscriptions it matched."""

    at: datetime
    matched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadDelivery:
    """A dead letter of an event that is known."""

    delivery_id: DeliveryId
    subscription_id: SubscriptionId | None
    attempts: int
    died_at: datetime
    reason: str
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDetails(RecordedEvent):
    """An event with all that happened to it; `counts` as in a list.

    The payload is JSON text; each list is its first page. `trace` has the W3C headers of the trace that the event was
    recorded in, by name.
    """

    counts: Counts
    resolution: Resolution | None
    deliveries: Page[ListedDelivery]
    attempts: Page[Attempt]
    dead_letters: Page[DeadDelivery]
    trace: dict[str, str] | None
    payload: str


_COUNTS = tuple(field.name for field in fields(Counts))
_LISTING = Listing(
    name="events",
    columns={"at": "e.recorded_at", "type": "e.type", "tenant": "e.tenant", "key": "e.key"},
    own=own("e.tenant"),
    keys=(Key("e.seq", "seq", "bigint", descending=True),),
)

# The resolution of an event begins at or before it, nearly always just before: look back so many batches, no further.
_LOOK_BACK = 200

_COUNTED = """
select e.*,
       exists (select from outbox.pending p where p.event_seq = e.seq) as pending,
       (select r.matches[array_position(r.seqs, e.seq)] from (
            select seqs, matches, at from outbox.resolutions where first_seq <= e.seq
            order by first_seq desc limit :look_back) r
        where e.seq = any(r.seqs) order by r.at desc limit 1) as matched
from e order by e.seq desc
"""
_LIST = f"""
with e as materialized (
    select e.seq, e.id, e.type, e.tenant, e.key, e.recorded_at, e.available_at, e.priority, true as kept
    from outbox.events e where {{where}} {_LISTING.order_by} limit :limit)
{_COUNTED}
"""  # noqa: S608 - the parts are constants

_EVENT = f"""
with e as materialized (
    select * from (
        select seq, id, type, tenant, key, recorded_at, available_at, priority, trace, payload, true as kept
        from outbox.events
        where id = :id
        union all
        (select event_seq, event_id, type, tenant, key, recorded_at, null, null, null, payload, false
         from outbox.dead_letters where event_id = :id limit 1)
        limit 1) e
    where {own("e.tenant")})
{_COUNTED}
"""  # noqa: S608 - the parts are constants


def list_events(
    connection: Connection, tenant: str | None, filters: Filters, *, after: str | None = None
) -> Page[ListedEvent]:
    """Return the newest events that pass the filters, each with its state and counts of subscriptions."""
    where, parameters = _LISTING.where(tenant, filters, after)
    statement = text(_LIST.format(where=where))
    rows = connection.execute(statement, {**parameters, "look_back": _LOOK_BACK}).all()
    seqs = [row.seq for row in rows]
    found = dict(zip(seqs, fates(connection, seqs), strict=True))
    return _LISTING.page(rows, filters.limit, lambda row: _listed(row, found[row.seq]))


def _listed(row: Any, fate: Fates) -> ListedEvent:
    counts = _counts(row, row.matched, fate)
    return ListedEvent(**_fields(row, counts), **{name: getattr(counts, name) for name in _COUNTS})


def _counts(row: Any, matched: int | None, fate: Fates) -> Counts:
    return Counts(
        matched=matched,
        delivered=fate.delivered,
        outstanding=fate.outstanding,
        dead=fate.dead,
        purged=fate.purged,
        cancelled=None if row.pending or not row.kept else fate.cancelled(matched),
    )


def _fields(row: Any, counts: Counts) -> dict[str, Any]:
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


def show_event(connection: Connection, tenant: str | None, event_id: UUID | str) -> EventDetails:
    """Return one event with its payload, resolution, deliveries, attempts and dead letters.

    Raises NotFoundError when it is none of this tenant's, was never recorded, or is past its retention.
    """
    uuid = EventId.of(event_id)
    parameters = {"id": uuid, "asking": tenant, "look_back": _LOOK_BACK}
    row = connection.execute(text(_EVENT), parameters).one_or_none()
    if row is None:
        raise NotFoundError(f"event: no {uuid}; never recorded, or pruned after its retention")
    resolution = _resolution(connection, row.seq)
    (fate,) = fates(connection, [row.seq])
    counts = _counts(row, resolution.matched if resolution else None, fate)
    return EventDetails(
        **_fields(row, counts),
        counts=counts,
        resolution=resolution,
        deliveries=outstanding_of_event(connection, tenant, uuid),
        attempts=attempts_of_event(connection, tenant, uuid),
        dead_letters=dead_of_event(connection, tenant, uuid),
        trace=_trace(row.trace),
        payload=row.payload,
    )


def _trace(kept: str | None) -> dict[str, str] | None:
    """Return the lines of a trace by the names of their headers."""
    if kept is None:
        return None
    names = ("traceparent", "tracestate", "baggage")
    return {name: line for name, line in zip(names, kept.split("\n"), strict=False) if line}


_RESOLUTION = """
select at, matches[array_position(seqs, cast(:seq as bigint))] as matched from outbox.resolutions
where first_seq <= :seq and :seq = any(seqs) order by first_seq desc, at desc limit 1
"""


def _resolution(connection: Connection, seq: int) -> Resolution | None:
    row = connection.execute(text(_RESOLUTION), {"seq": seq}).one_or_none()
    return None if row is None else Resolution(at=row.at, matched=row.matched)


_DEAD_LISTING = Listing(
    name="dead_of_event",
    columns={},
    own=OWN_DEAD_LETTER,
    keys=(Key("l.died_at", "died_at", "timestamptz"), Key("l.delivery_id", "delivery_id", "uuid")),
)
_DEAD = """
select l.delivery_id, l.subscription_id, l.attempts, l.died_at, l.reason, l.error
from outbox.dead_letters l left join outbox.subscriptions s on s.id = l.subscription_id
"""


def dead_of_event(
    connection: Connection, tenant: str | None, event_id: UUID | str, *, after: str | None = None
) -> Page[DeadDelivery]:
    """Return the dead letters of one event, the oldest first, a thousand a page."""
    where, parameters = _DEAD_LISTING.where(tenant, Filters(limit=PAGE_ROWS), after)
    statement = f"{_DEAD} where l.event_seq = ({SEQ_OF_EVENT}) and {where} {_DEAD_LISTING.order_by} limit :limit"
    rows = connection.execute(text(statement), {**parameters, "event_id": EventId.of(event_id)}).all()
    return _DEAD_LISTING.page(rows, PAGE_ROWS, _dead)


def _dead(row: Any) -> DeadDelivery:
    return DeadDelivery(
        delivery_id=DeliveryId.of(row.delivery_id),
        subscription_id=SubscriptionId.maybe(row.subscription_id),
        attempts=row.attempts,
        died_at=row.died_at,
        reason=row.reason,
        error=row.error,
    )
