"""What there is to do: statements that read pending events and due deliveries, and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from relay.store.database import BEGIN, ORIGIN, rollback_if_open
from relay.store.pending_shares import HAS_GROUPS
from relay.store.rows import Poll, Swept
from relay.store.subscriptions import PROBED, SENDABLE
from relay.store.suspects import IS_SUSPECT, SUSPECTS_AMONG

if TYPE_CHECKING:
    from relay.store.database import Database

__all__ = ["POLL", "is_drained", "poll", "sweep"]

# An idle relay repeats this a hundred times a second: one message of the simple protocol costs Python half of what a
# pipeline does. Two numbers are formatted by %d and %f, the others are constants. The answer is text, in which
# extra_float_digits would round a time.
POLL = f"""{BEGIN};
set local enable_seqscan = off;
set local jit = off;
%s;
select (select min(event_seq) from outbox.pending where event_seq > %d),
       (select last_value from outbox.events_seq),
       array(select distinct subscription_id from outbox.deliveries
             where lease is null and due_at > to_timestamp(%f) and due_at <= now()),
       (extract(epoch from clock_timestamp()) * 1000000)::bigint,
       exists (select from outbox.sending where paused_at is not null),
       array(select place from outbox.home),
       %s;
commit"""

_HIDE_NOTHING = "set local row_security = off"


async def poll(database: Database, after_seq: int, due_since: float, *, ask_groups: bool = False) -> Poll:
    """Read what is pending above `after_seq`, what became due after `due_since` (Unix seconds), the switch and homes.

    `ask_groups`: read too whether some pending event has a tenant or a priority.
    """
    connection = await database.connect()
    exceptions = database.exceptions
    also = f"select set_config('row_security', 'off', true), {exceptions}" if exceptions else _HIDE_NOTHING
    try:
        cursor = await connection.execute(
            (POLL % (also, after_seq, due_since, HAS_GROUPS if ask_groups else "false")).encode()
        )
        for _ in ("begin", "set", "set", "set"):
            cursor.nextset()
        rows = await cursor.fetchall()
    finally:
        await rollback_if_open(connection)
    ((first, drawn, due, microseconds, paused, homes, groups),) = rows
    due_ids, unix_seconds = [subscription_id.bytes for subscription_id in due], microseconds / 1_000_000
    return Poll(first, drawn, due_ids, unix_seconds, paused, homes, groups)


# Asks about every subscription in turn, a slice each time: finds what the due map does not know, and expired leases.
# The oldest due rows nearly always answer both questions: the dead rows of a held snapshot before them are read once.
_SWEEP = f"""
with slice as materialized (
    select id, version from outbox.subscriptions where id > %b and {SENDABLE} order by id limit %b)
select s.id, case when o.due or o.number < {SUSPECTS_AMONG} then coalesce(o.due, false)
                  else exists (select from outbox.deliveries
                               where subscription_id = s.id and due_at <= now() and coalesce(lease, -1) < 0) end,
       coalesce(o.suspect, false), s.version
from slice s cross join lateral (
    with oldest as materialized (
        select lease, batch_id from outbox.deliveries where %b and subscription_id = s.id and due_at <= now()
        order by due_at, id limit {SUSPECTS_AMONG})
    select count(*) as number, bool_or(coalesce(lease, -1) < 0) as due, bool_or({IS_SUSPECT}) as suspect from oldest) o
order by s.id
"""


# Whether a person asked for a test message that nobody took: a look at an index that is empty, nearly always.
_TEST_WAITS = """
select exists (select from outbox.test_requests where taken_at is null and expires_at > clock_timestamp())"""


async def sweep(database: Database, after_id: bytes, count: int, *, for_due: bool = True) -> list[Swept]:
    """Read the next `count` subscriptions by id, without those that may not be sent to now.

    It reads the database's origin too, and whether a test message waits, in the same round trip.

    Args:
        database: the data plane's.
        after_id: the last one that was read before.
        count: subscriptions at most.
        for_due: whether to look for what is due. If not, the rows say that nothing is, which means nothing.
    """
    swept, waits = (_SWEEP, (UUID(bytes=after_id), count, for_due)), (_TEST_WAITS, ())
    if not database.may_ask_origin:
        rows, ((database.test_waits,),) = await database.transaction(swept, waits)
    else:
        rows, ((database.test_waits,),), (database.origin,) = await database.transaction(swept, waits, (ORIGIN, ()))
    return [Swept(*row) for row in rows]


_DRAINED = f"""
select not exists (select from outbox.pending)
   and not exists (select from outbox.subscriptions where sorting_since is not null and removed_at is null)
   and not exists (select from outbox.subscriptions s
                   where ({SENDABLE} or {PROBED})
                     and not exists (select from outbox.sending where paused_at is not null)
                     and not (select outbox.is_copied())
                     and exists (select from outbox.deliveries d where d.subscription_id = s.id
                                 and (d.due_at <= (select clock_timestamp()) or d.lease is not null)))
"""


async def is_drained(database: Database) -> bool:
    """Tell whether nothing is pending, due, leased or to be sorted.

    What waits for a later time, or is paused, or lies in a copy of a database, does not count.
    """
    ((nothing,),) = await database.fetch(_DRAINED)
    return bool(nothing)
