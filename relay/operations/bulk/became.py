"""What became of the deliveries that a bulk operation made: read from them, at a bounded cost.

A delivery that is made of a dead letter or of what is gone ends in the mark of its operation (relay/store/bulk.py), so
it is known wherever it is: outstanding, in the attempts, or dead once more. A retry that was made due keeps its id, and
is told by its subscription alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text

from outbox.control.planned import along_indexes
from relay.store.bulk import mark_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Became", "became_of"]

LOOKED_AT = 20_000  # rows of each table


@dataclass(frozen=True, slots=True, kw_only=True)
class Became:
    """Of the deliveries that an operation made, how many arrived, are on their way, died once more, were cancelled.

    exact: false where there may be more, because so many rows had to be looked at. others: what was put back besides,
    None where that is not known: retries that were made due, which keep their delivery; what was put back once more
    since; what is past its retention.
    """

    delivered: int
    outstanding: int
    dead: int
    cancelled: int
    others: int | None
    exact: bool


# Of one subscription its own rows since the start are read, along an index; of all, those whose ids are of that time.
# The subscription stands in the order, or an index by time alone would do: that leads through the rows of all others.
_READ = """
with tried as materialized (
    select delivery_id as id, verdict from outbox.attempts where {tried} and at >= :started order by {by} limit :look),
outstanding as materialized (select id from outbox.deliveries where {outstanding} limit :look),
buried as materialized (select delivery_id as id from outbox.dead_letters where {buried} limit :look)
select (select count(distinct id) from tried where verdict = 'delivered' and {marked}) as delivered,
       (select count(distinct id) from tried where verdict = 'cancelled' and {marked}) as cancelled,
       (select count(*) from outstanding where {marked}) as outstanding,
       (select count(*) from buried where {marked}) as dead,
       greatest((select count(*) from tried), (select count(*) from outstanding), (select count(*) from buried)) as most
"""
_MARKED = "right(cast(id as text), 8) = :mark"
_MADE_MEANWHILE = "between :first and :last"
_SINCE = "(subscription_id, {}) >= (:subscription, :started) and subscription_id <= :subscription"
_OF_ONE = text(_READ.format(
    tried=_SINCE.format("at"), by="subscription_id, at", marked=_MARKED,
    outstanding="subscription_id = :subscription order by due_at, id",
    buried=_SINCE.format("died_at") + " order by subscription_id, died_at",
))  # fmt: skip
_OF_ALL = text(_READ.format(
    tried=f"delivery_id {_MADE_MEANWHILE}", by="delivery_id", marked=_MARKED,
    outstanding=f"id {_MADE_MEANWHILE} order by id",
    buried=f"delivery_id {_MADE_MEANWHILE} order by delivery_id",
))  # fmt: skip


def became_of(connection: Connection, row: Any) -> Became | None:
    """Return what became of what the operation of this row made; None where it put nothing back so far."""
    if not row.done or row.started_at is None:
        return None
    place = {"mark": mark_of(row.id), "started": row.started_at, "look": LOOKED_AT}
    if row.subscription_id is None:
        ended = _first_id(row.finished_at.timestamp() + 1) if row.finished_at else UUID(int=2**128 - 1)
        statement, of = _OF_ALL, {"first": _first_id(row.started_at.timestamp() - 1), "last": ended}
    else:
        statement, of = _OF_ONE, {"subscription": row.subscription_id}
    with along_indexes(connection):
        found = connection.execute(statement, place | of).one()
    exact = found.most < LOOKED_AT
    told = found.delivered + found.outstanding + found.dead + found.cancelled
    return Became(
        delivered=found.delivered, outstanding=found.outstanding, dead=found.dead, cancelled=found.cancelled,
        others=max(0, row.done - told) if exact else None, exact=exact,
    )  # fmt: skip


def _first_id(seconds: float) -> UUID:
    """Return the least id that is made at this time."""
    return UUID(int=int(seconds * 1000) << 80)
