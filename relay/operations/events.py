"""Events: what was recorded, and what became of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.errors import NotFoundError
from outbox.ids import parse_id, text_id
from relay.operations.deliveries import attempts_of, outstanding_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from relay.operations.filters import Filters

__all__ = ["list_events", "show_event"]

_COLUMNS = {"at": "e.recorded_at", "type": "e.type", "tenant": "e.tenant", "key": "e.key"}

# The resolution of an event begins at or before it, nearly always just before: look back so many batches, no further.
_LOOK_BACK = 200

_LIST = """
with e as materialized (
    select e.seq, e.id, e.type, e.tenant, e.key, e.recorded_at, e.available_at
    from outbox.events e where {where} order by e.seq desc limit :limit)
select e.*,
       exists (select from outbox.pending p where p.event_seq = e.seq) as pending,
       (select r.matches[array_position(r.seqs, e.seq)] from (
            select seqs, matches, at from outbox.resolutions where first_seq <= e.seq
            order by first_seq desc limit :look_back) r
        where e.seq = any(r.seqs) order by r.at desc limit 1) as matched,
       (select count(distinct a.subscription_id) from outbox.attempts a
        where a.event_seq = e.seq and a.verdict = 'delivered') as delivered,
       (select count(*) from outbox.dead_letters l where l.event_seq = e.seq) as dead
from e order by e.seq desc
"""

_OUTSTANDING = """
select event_seq, count(*) as outstanding from outbox.deliveries
where event_seq = any(cast(:seqs as bigint[])) group by event_seq
"""

_EVENT = """
select seq, id, type, tenant, key, recorded_at, available_at, payload from outbox.events where id = :id
union all
(select event_seq, event_id, type, tenant, key, recorded_at, null, payload from outbox.dead_letters
 where event_id = :id limit 1)
limit 1
"""

_DEAD = """
select delivery_id, subscription_id, attempts, died_at, reason, error from outbox.dead_letters
where event_seq = :seq order by died_at
"""


def list_events(connection: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Return the newest events that pass the filters, each with its state and counts of subscriptions."""
    where, parameters = filters.where(_COLUMNS)
    rows = connection.execute(text(_LIST.format(where=where)), {**parameters, "look_back": _LOOK_BACK}).all()
    outstanding = _outstanding(connection, [row.seq for row in rows])
    return [_listed(row, outstanding.get(row.seq, 0)) for row in rows]


def _outstanding(connection: Connection, seqs: list[int]) -> dict[int, int]:
    return {row.event_seq: row.outstanding for row in connection.execute(text(_OUTSTANDING), {"seqs": seqs})}


def _listed(row: Any, outstanding: int) -> dict[str, Any]:
    state = event_state(
        pending=row.pending, matched=row.matched, delivered=row.delivered, dead=row.dead, outstanding=outstanding
    )
    counts = {"matched": row.matched, "delivered": row.delivered, "outstanding": outstanding, "dead": row.dead}
    return _event(row, state) | counts


def _event(row: Any, state: str) -> dict[str, Any]:
    return {
        "id": text_id("evt", row.id),
        "type": row.type,
        "tenant": row.tenant,
        "key": row.key,
        "recorded_at": row.recorded_at,
        "available_at": row.available_at,
        "state": state,
    }


def event_state(*, pending: bool, matched: int | None, delivered: int, dead: int, outstanding: int) -> str:
    """Return the one word for an event, the most urgent first.

    pending (not resolved yet), dead (at least one dead letter), under_way, unmatched (no subscriber), delivered,
    cancelled (its subscriptions were removed), unknown (the record is past its retention).
    """
    if pending:
        return "pending"
    if dead:
        return "dead"
    if outstanding:
        return "under_way"
    if delivered:
        return "delivered"
    return {None: "unknown", 0: "unmatched"}.get(matched, "cancelled")


def show_event(connection: Connection, event_id: str) -> dict[str, Any]:
    """Return one event with its payload (JSON text), resolution, deliveries, attempts and dead letters.

    Raises NotFoundError when it was never recorded, or is past its retention.
    """
    uuid = parse_id("evt", event_id)
    event = connection.execute(text(_EVENT), {"id": uuid}).one_or_none()
    if event is None:
        raise NotFoundError(f"event: no {text_id('evt', uuid)}; never recorded, or pruned after its retention")
    resolution = _resolution(connection, event.seq)
    outstanding = outstanding_of(connection, event_seq=event.seq)
    attempts = attempts_of(connection, event_seq=event.seq)
    dead = [_dead(row) for row in connection.execute(text(_DEAD), {"seq": event.seq})]
    pending = connection.execute(
        text("select exists (select from outbox.pending where event_seq = :seq)"), {"seq": event.seq}
    ).scalar_one()
    delivered = {attempt["subscription_id"] for attempt in attempts if attempt["verdict"] == "delivered"}
    matched = resolution["matched"] if resolution else None
    state = event_state(
        pending=pending, matched=matched, delivered=len(delivered), dead=len(dead), outstanding=len(outstanding)
    )
    return _event(event, state) | {
        "resolution": resolution,
        "deliveries": outstanding,
        "attempts": attempts,
        "dead_letters": dead,
        "payload": event.payload,
    }


_RESOLUTION = """
select at, matches[array_position(seqs, cast(:seq as bigint))] as matched from outbox.resolutions
where first_seq <= :seq and :seq = any(seqs) order by first_seq desc, at desc limit 1
"""


def _resolution(connection: Connection, seq: int) -> dict[str, Any] | None:
    row = connection.execute(text(_RESOLUTION), {"seq": seq}).one_or_none()
    return None if row is None else {"at": row.at, "matched": row.matched}


def _dead(row: Any) -> dict[str, Any]:
    return {
        "delivery_id": text_id("dlv", row.delivery_id),
        "subscription_id": row.subscription_id and text_id("sub", row.subscription_id),
        "attempts": row.attempts,
        "died_at": row.died_at,
        "reason": row.reason,
        "error": row.error,
    }
