"""Lanes, as far as a person's own transaction moves them: relay/store/lanes.py has the rule and what relays do."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

__all__ = ["HEADS", "LANE_OF_EVENT", "LOOK", "NOW", "PARKED", "RUNNABLE", "SORTING", "look_in"]

HEADS = "deliveries_heads"

LANE_OF_EVENT = "hashtextextended(key, hashtextextended(tenant, 0))"
"""The hash of an event's key, null without one: of columns of outbox.events."""

# When a parked row goes: now, or at its time; earlier by its priority, as if it were born due.
NOW = "greatest(clock_timestamp(), not_before) - make_interval(secs => coalesce(boost_seconds, 0))"

# Scalar subqueries, not EXISTS: the planner could answer that from a hash of every row of the index.
RUNNABLE = """(select true from outbox.deliveries d
     where d.subscription_id = r.subscription_id and d.lane = r.lane and isfinite(d.due_at) limit 1)"""
PARKED = """(select true from outbox.deliveries d
     where d.subscription_id = r.subscription_id and d.lane = r.lane and not isfinite(d.due_at) limit 1)"""
SORTING = """(select true from outbox.subscriptions s
     where s.id = r.subscription_id and s.sorting_since is not null limit 1)"""

# The case is there so that most lanes, which have nothing parked, cost one look-up.
LOOK = f"""
with r as materialized (select distinct subscription_id, lane from unnest({{ids}}, {{lanes}}) a(subscription_id, lane)),
first as materialized (
    select c.id from r cross join lateral (
        select id from outbox.deliveries d
        where d.subscription_id = r.subscription_id and d.lane = r.lane and not isfinite(d.due_at)
        order by d.event_seq, d.id limit 1) c
    where case when c.id is not null then coalesce({RUNNABLE}, {SORTING}) end is null),
locked as materialized (
    select id from outbox.deliveries where id = any(array(select id from first)) and not isfinite(due_at)
    order by id for no key update skip locked)
update outbox.deliveries d set due_at = {NOW}, not_before = null
where d.id = any(array(select id from locked))
returning d.subscription_id, d.due_at <= clock_timestamp()
"""
"""parked → due, or waiting for its time: the first of each lane that has no head."""
_LOOK_IN = text(LOOK.format(ids="cast(:ids as uuid[])", lanes="cast(:lanes as bigint[])"))


def look_in(connection: Connection, lanes: Sequence[tuple[UUID, int]]) -> None:
    """parked → due: the same within a command's transaction, after it deleted from these lanes or parked in them.

    What others do in the same moment it cannot see: a relay's sweep makes up for that within seconds. Where a relay was
    first, its head stays the head.
    """
    if not lanes:
        return
    columns = {"ids": [subscription_id for subscription_id, _ in lanes], "lanes": [lane for _, lane in lanes]}
    try:
        with connection.begin_nested():
            connection.execute(_LOOK_IN, columns)
    except IntegrityError as error:
        if HEADS not in str(error.orig):  # whatever driver the caller has: the message names the index
            raise
