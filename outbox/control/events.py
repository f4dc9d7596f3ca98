"""Events: what was recorded, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.attempts import PAGE_ROWS, Attempt, attempts_of_event
from outbox.control.deliveries import ListedDelivery, outstanding_of_event
from outbox.control.fates import Fates, fates
from outbox.control.filters import SEQ_OF_EVENT, Filters
from outbox.control.pages import Key, Listing, Page
from outbox.control.planned import along_indexes
from outbox.control.tenancy import OWN_DEAD_LETTER, own
from outbox.control.walk import Walk
from outbox.errors import NotFoundError
from outbox.ids import DeliveryId, EventId, SubscriptionId

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
    columns={"at": "w.recorded_at", "type": "w.type", "tenant": "w.tenant", "key": "w.key", "event": "w.seq",
             "text": """exists (select from outbox.events p
                               where p.seq = w.seq and strpos(substr(p.payload, 1, 65536), :text) > 0)"""},
    own=own("w.tenant"),
    keys=(Key("w.seq", "seq", "bigint", descending=True),),
)  # fmt: skip
LOOKED = 10_000
"""How many events one page of the list looks at, at most."""
LOOKED_FOR_TEXT = 1_000
"""The same where text is looked for: the first 64 KiB of payloads are read."""

# The resolution of an event begins at or before it, nearly always just before: look back so many batches, no further.
_LOOK_BACK = 200

_RESOLVED = """
select exists (select from outbox.pending p where p.event_seq = {of}.seq) as pending,
       (select r.matches[array_position(r.seqs, {of}.seq)] from (
            select seqs, matches, at from outbox.resolutions where first_seq <= {of}.seq
            order by first_seq desc limit :look_back) r
        where {of}.seq = any(r.seqs) order by r.at desc limit 1) as matched"""
_WALK = Walk(
    listing=_LISTING,
    table="outbox.events",
    time="recorded_at",
    columns="seq, id, type, tenant, key, recorded_at, available_at, priority, true as kept",
    details=_RESOLVED.format(of="f"),
)

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
select e.*, r.* from e cross join lateral ({_RESOLVED.format(of="e")}) r
"""  # noqa: S608 - the parts are constants


def list_events(
    connection: Connection, tenant: str | None, filters: Filters, *, after: str | None = None
) -> Page[ListedEvent]:
    """Return the newest events that pass the filters, each with its state and counts of subscriptions.

    since and until go by the order of recording. An event that was inserted with a recorded_at of its own is not found
    by them.
    """
    where, parameters = _LISTING.where(tenant, filters, after)
    along = [_LISTING.beyond] if after is not None else []
    for name, sign in (("since", ">="), ("until", "<")):
        if getattr(filters, name) is not None:
            along.append(f"w.seq {sign} :{name}_seq")
            parameters[f"{name}_seq"] = _seq_at(connection, getattr(filters, name))
    asks = tenant is not None or bool(set(filters.given()) - {"since", "until"})
    page = _WALK.page(
        connection,
        along=" and ".join(along) or "true",
        passing=where,
        parameters=parameters | {"look_back": _LOOK_BACK},
        branches=None,
        looked=LOOKED_FOR_TEXT if filters.text is not None else LOOKED if asks else filters.limit + 1,
        make=lambda row: row,
        table=None if filters.event is None else f"(select * from outbox.events where seq = ({SEQ_OF_EVENT}) offset 0)",  # noqa: S608
    )
    seqs = [row.seq for row in page]
    found = dict(zip(seqs, fates(connection, seqs), strict=True))
    return replace(page, items=tuple(_listed(row, found[row.seq]) for row in page))


# Halves what is left until one number is: about 24 look-ups. What was recorded later has a higher number, nearly.
_SEQ_AT = """
with recursive half(low, high, step) as (
    select (select seq from outbox.events order by seq limit 1),
           (select seq + 1 from outbox.events order by seq desc limit 1), 0
    union all
    select case when m.recorded_at < {moment} then m.seq + 1 else low end,
           case when m.recorded_at < {moment} then high else (low + high) / 2 end, step + 1
    from half cross join lateral (
        select seq, recorded_at from outbox.events where seq >= (low + high) / 2 order by seq limit 1) m
    where low < high and step < 64)
select coalesce((select low from half order by step desc limit 1), 1)
"""


def _seq_at(connection: Connection, when: datetime | timedelta) -> int:
    """Return the number from which on events were recorded at this time or later."""
    value: object
    if isinstance(when, timedelta):
        moment, value = "statement_timestamp() - make_interval(secs => :moment)", when.total_seconds()
    else:
        moment, value = ":moment", when
    with along_indexes(connection):
        found: int = connection.execute(text(_SEQ_AT.format(moment=moment)), {"moment": value}).scalar_one()
    return found


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
