"""Unresolved events: committed, but neither waiting to be resolved nor resolved, so nobody will ever send them.

The relay leaves none. Somebody deleted a pending row, or inserted an event while triggers were off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from outbox.ids import EventId
from relay.operations.status.documents import Unresolved

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Row

__all__ = ["DRAWN", "find_unresolved", "find_unresolved_since", "last_numbers", "sql_to_mend"]

NEWEST = 10_000
NAMED = 3
AMONG = 2_000_000  # of the last numbers: with these bounds known when it is planned, a query opens the last leaves only
BATCHES_BELOW = 20

DRAWN = text("select last_value from outbox.events_seq")
# One statement, so one snapshot: fan_out moves an event from pending to resolutions in one transaction. The last number
# was read before it: events recorded since then stand above it, and must not take the places of those that are asked
# for. Each step reads a bounded part and leaves fewer; the last ones read nothing unless something is left. A batch
# that has a late commit begins far below the events it resolved, so what the batches near them do not have is looked
# for by time. An event that replay wrote again after its retention has no resolution any more, but a delivery, an
# attempt or a dead letter.
_LOST = text("""
with newest as materialized (
    select seq from outbox.events where seq > :above and seq <= :drawn order by seq desc limit :newest),
low as materialized (select min(seq) as seq from newest),
unread as materialized (
    select seq from newest
    except
    (select event_seq from outbox.pending where event_seq >= (select seq from low) and event_seq <= :drawn
     order by event_seq desc limit :newest)
    except
    select unnest(seqs) from (
        (select seqs from outbox.resolutions where first_seq >= (select seq from low) and first_seq <= :drawn
         order by first_seq desc limit :newest)
        union all
        (select seqs from outbox.resolutions where first_seq < (select seq from low)
         order by first_seq desc limit :batches_below)) near),
since as materialized (
    select min(e.recorded_at) - interval '1 minute' as at
    from unread u cross join lateral (select recorded_at from outbox.events
                                   where seq = u.seq and seq > :above and seq <= :drawn limit 1) e),
unresolved as materialized (
    select seq from unread
    except
    select unnest(seqs) from outbox.resolutions
    where exists (select from unread) and at >= (select at from since)
      and first_seq < (select seq from low) and seqs[cardinality(seqs)] >= (select seq from low)),
untried as materialized (
    select u.seq from unresolved u
    left join lateral (select event_seq from outbox.dead_letters where event_seq = u.seq limit 1) l on true
    left join lateral (select event_seq from outbox.attempts where event_seq = u.seq limit 1) a on true
    where l.event_seq is null and a.event_seq is null),
undelivered as materialized (
    select seq from untried
    except
    select event_seq from outbox.deliveries
    where exists (select from untried) and event_seq >= (select seq from low)),
lost as materialized (
    select u.seq, e.id from undelivered u
    cross join lateral (select id, recorded_at from outbox.events
                        where seq = u.seq and seq > :above and seq <= :drawn limit 1) e
    where e.recorded_at >= cast(:since as timestamptz))
select (select count(*) from newest) as looked_at,
       (select seq from low) as lowest,
       (select count(*) from lost) as found,
       array(select id from lost order by seq limit :named) as ids
""")
_RECORDED_AT = text("select recorded_at from outbox.events where seq = :seq")
_NEXT_BELOW = text("select max(seq) from outbox.events where seq <= :seq")


def last_numbers(drawn: int) -> dict[str, int]:
    """Return the bounds of the last two million numbers of events, `above` and `drawn`, where that is the last one."""
    return {"above": drawn - AMONG, "drawn": drawn}


def find_unresolved(connection: Connection, tenant: str | None) -> Unresolved:
    """Return how many of the newest 10,000 events are unresolved, and the oldest three of them. Operator only.

    Where numbers were left out, as after a failover, those newest are looked for among the last two million numbers.
    """
    operator_only(tenant, "status")
    row = _look(connection, connection.execute(DRAWN).scalar_one(), named=NAMED, since="-infinity")
    return Unresolved(of_last=row.looked_at, count=row.found, events=tuple(map(EventId.of, row.ids)))


def find_unresolved_since(connection: Connection, tenant: str | None, since: datetime, named: int) -> Unresolved:
    """Look through all events that were recorded since then, NEWEST at a time; name the oldest `named`.

    Operator only.
    """
    operator_only(tenant, "reconciliation")
    drawn: int | None = connection.execute(DRAWN).scalar_one()
    looked_at = count = 0
    ids: list[UUID] = []
    while drawn is not None:
        row = _look(connection, drawn, named=named, since=since)
        if not row.looked_at:  # numbers were left out
            drawn = connection.execute(_NEXT_BELOW, {"seq": drawn - AMONG}).scalar()
            continue
        looked_at, count, ids = looked_at + row.looked_at, count + row.found, [*row.ids, *ids][:named]
        recorded_at = connection.execute(_RECORDED_AT, {"seq": row.lowest}).scalar()
        drawn = row.lowest - 1 if recorded_at is None or recorded_at >= since else None
    return Unresolved(of_last=looked_at, count=count, events=tuple(map(EventId.of, ids)))


def _look(connection: Connection, drawn: int, *, named: int, since: datetime | str) -> Row[Any]:
    bounds = {"newest": NEWEST, "batches_below": BATCHES_BELOW, **last_numbers(drawn)}
    return connection.execute(_LOST, {**bounds, "named": named, "since": since}).one()


def sql_to_mend(event_ids: Sequence[EventId | str]) -> str:
    """Return the SQL that makes these events pending; outbox_operator may run it."""
    ids = ", ".join(f"outbox.uuid_of('{event_id}')" for event_id in event_ids)
    return f"insert into outbox.pending (event_seq) select seq from outbox.events where id in ({ids})"  # noqa: S608
