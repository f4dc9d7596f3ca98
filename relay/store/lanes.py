"""Lanes: the deliveries of one key for one ordered subscription, of which one at a time may be sent, the head.

The rule, which a model of all interleavings holds to be enough:

- fan_out, which has a turn, makes a row the head only if its lane has no row at all; every other is parked at due_at =
  'infinity', and so is what a replay puts into a lane.
- Whoever parked a row or deleted one *looks* at its lane after that is committed: if no row of it is runnable (has a
  finite due_at), the smallest (event_seq, id) becomes the head. It is chosen unlocked, then locked by its id, since who
  has locked it looks too.
- The unique index deliveries_heads is the alarm: where two promote different rows, one is refused, and looks again.
- A sweep looks at every lane that has parked rows, for those who died between their commit and their look.

The statement of a look, LOOK, stands in outbox/control/store/lanes.py: commands look too, without a relay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import UUID

import psycopg

from outbox.control.store.lanes import HEADS, LANE_OF_EVENT, LOOK, NOW, PARKED, RUNNABLE, SORTING
from relay.store.arrays import Bigints, Uuids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Database

__all__ = [
    "FIRST_LANE", "LANE_OF_EVENT", "Lane", "SweptLane", "find_busy",
    "is_lane_race", "look", "release_parked", "sweep_lanes",
]  # fmt: skip

Lane: TypeAlias = tuple[bytes, int]
"""A lane: the subscription's id and the hash of the key."""

FIRST_LANE: Lane = (bytes(16), -(2**63))
TRIES = 20

# While a backlog is sorted into lanes, nobody knows yet which row of a lane is the first: all are parked.
_FIND_BUSY = f"""
select r.place from unnest(%b, %b) with ordinality r(subscription_id, lane, place)
where coalesce({RUNNABLE}, {PARKED}, {SORTING}, false)"""


async def find_busy(connection: psycopg.AsyncConnection[Any], lanes: Sequence[Lane]) -> set[Lane]:
    """Return those of these lanes that have a row, in a transaction of fan_out: nobody else inserts a head."""
    cursor = await connection.execute(_FIND_BUSY, _columns(lanes), binary=True)
    return {lanes[place - 1] for (place,) in await cursor.fetchall()}


_LOOK_AT = LOOK.format(ids="%b", lanes="%b")


async def look(database: Database, lanes: Sequence[Lane]) -> list[bytes]:
    """parked → due: give a head to each of these lanes that has none. Call it after the commit that it follows.

    Return the subscriptions, each as often as it has a new head that is due now.
    """
    for left in reversed(range(TRIES)):
        try:
            rows = await database.fetch(_LOOK_AT, *_columns(lanes))
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected) as error:
            if not left or not (is_lane_race(error) or isinstance(error, psycopg.errors.DeadlockDetected)):
                raise
        else:
            return [subscription_id for subscription_id, is_due in rows if is_due]
    return []


def is_lane_race(error: psycopg.Error) -> bool:
    """Tell whether an insert or update was refused because the lane has a head meanwhile."""
    return isinstance(error, psycopg.errors.UniqueViolation) and error.diag.constraint_name == HEADS


class SweptLane(NamedTuple):
    """A lane that has parked rows; `number` counts from 1 in its slice."""

    lane: Lane
    number: int
    headless: bool
    ordered: bool


# From lane to lane, one look-up each, however deep they are.
_SWEEP = f"""
with recursive r as (
    (select subscription_id, lane, 1 as number from outbox.deliveries
     where lane is not null and not isfinite(due_at) and (subscription_id, lane) > (%b, %b)
     order by subscription_id, lane limit 1)
    union all
    select c.subscription_id, c.lane, r.number + 1 from r cross join lateral (
        select subscription_id, lane from outbox.deliveries
        where lane is not null and not isfinite(due_at) and (subscription_id, lane) > (r.subscription_id, r.lane)
        order by subscription_id, lane limit 1) c
    where r.number < %b),
seen as (
    select r.*, coalesce({RUNNABLE}, {SORTING}) is null as headless,
           coalesce((select ordered from outbox.subscriptions where id = r.subscription_id), true) as ordered
    from r)
select subscription_id, lane, number, headless, ordered from seen where headless or not ordered or number = %b
order by number
"""


async def sweep_lanes(database: Database, after: Lane, count: int) -> list[SweptLane]:
    """Read the next `count` lanes with parked rows: those without a head or order, and the last where there are more.

    Changes nothing.
    """
    subscription_id, lane = after
    rows = await database.fetch(_SWEEP, UUID(bytes=subscription_id), lane, count, count)
    return [SweptLane((row[0], row[1]), *row[2:]) for row in rows]


# The row of the subscription is held meanwhile: whoever switches order on again waits, and finds all of these rows.
_RELEASE_PARKED = f"""
with unordered as materialized (
    select id from outbox.subscriptions where id = %b and not ordered limit 1 for share skip locked),
chosen as materialized (
    select d.id from unordered u cross join lateral (
        select id from outbox.deliveries
        where subscription_id = u.id and lane is not null and not isfinite(due_at)
        order by subscription_id, lane, event_seq, id limit %b for no key update skip locked) d)
update outbox.deliveries d set lane = null, due_at = {NOW}, not_before = null
where d.id = any(array(select id from chosen)) returning 1
"""
"""parked → due: of a subscription whose order was switched off."""


async def release_parked(database: Database, subscription_id: bytes, limit: int) -> int:
    """parked → due: let go up to `limit` parked rows of a subscription that has no order any more; return how many."""
    return len(await database.fetch(_RELEASE_PARKED, UUID(bytes=subscription_id), limit))


def _columns(lanes: Sequence[Lane]) -> tuple[Uuids, Bigints]:
    return Uuids([subscription_id for subscription_id, _ in lanes]), Bigints([lane for _, lane in lanes])
