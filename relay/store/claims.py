"""From due to leased: retries, and deliveries that fan_out had no room to lease."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.model.delivery import HUGE_BYTES, SMALL_BYTES
from relay.store.arrays import Bigints, Integers, Timestamps, Uuids
from relay.store.bodies import read_bodies
from relay.store.lease import LEASE_END, LEASE_SLACK_SECONDS
from relay.store.rows import Leased
from relay.store.subscriptions import SENDABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Database

__all__ = ["ASKED", "DUE_SINCE", "FIRST", "LEASED", "Mark", "claim", "with_events"]

Mark = tuple[bytes, bytes]
"""A place in the order of a subscription's due rows: due_at and id, both as the server sends them."""

MAX_ATTEMPTS = 32_767  # the largest smallint; a schedule ends long before, but a person may disable and resume for ever
UNKNOWN_BYTES = 32_768  # what a delivery counts as that a relay of a former version made: it noted no size

FIRST: Mark = ((-(2**63)).to_bytes(8, "big", signed=True), bytes(16))
"""Before every row: -infinity, as the server sends it."""

DUE_SINCE = "due_at + make_interval(secs => coalesce(boost_seconds, 0))"
"""Since when a delivery is due, whatever its priority makes of due_at."""

ASKED = f"""
asked as materialized (
    select a.id, a.slots from unnest(%b, %b) with ordinality a(id, slots, place)
    cross join lateral (select from outbox.subscriptions where id = a.id and {SENDABLE} limit 1) s
    order by a.place)"""

_LEASED_COLUMNS = f"""
select d.id, d.event_seq, d.subscription_id, d.attempts, s.version, s.timeout_seconds,
       coalesce(d.event_bytes, {UNKNOWN_BYTES}), d.lane"""
_LEASED_FROM = """
from leased d
cross join lateral (select version, timeout_seconds from outbox.subscriptions where id = d.subscription_id limit 1) s
"""
LEASED = _LEASED_COLUMNS + _LEASED_FROM

# coalesce, not `lease is null`: with stale statistics the planner would take the partial index, and read the due rows
# of every other subscription.
# No event is looked up: planning for every leaf of events would take longer than the claim, and what a payload weighs
# stands in the delivery. A subscription's share ends its rows only, so that its large bodies leave the others theirs.
_CLAIM = f"""
with asked as materialized (
    select a.* from unnest(%b, %b, %b, %b, %b, %b) with ordinality a(id, slots, bytes, huge, from_due, from_id, place)
    cross join lateral (select from outbox.subscriptions where id = a.id and {SENDABLE} limit 1) s
    order by a.place),
chosen as materialized (
    select c.id, c.size, a.bytes, a.huge, a.place, c.due_at from asked a cross join lateral (
        select id, coalesce(event_bytes, {UNKNOWN_BYTES}) as size, due_at from outbox.deliveries
        where subscription_id = a.id and (due_at, id) >= (a.from_due, a.from_id)
            and due_at <= now() and coalesce(lease, -1) < 0
        order by due_at, id limit a.slots for no key update skip locked) c
    limit %b),
sized as materialized (
    select id, bytes, place, due_at, row_number() over () as number, size > {HUGE_BYTES} and huge > 0 as lone,
           case when size > {SMALL_BYTES} and size <= {HUGE_BYTES} then size else 0 end as cost
    from chosen where huge > 0 or size <= {HUGE_BYTES}),
shared as (
    select id, number, cost, lone,
           sum(cost) over (partition by place order by number) - cost as own, bytes from sized),
fitting as materialized (
    select id from (
        select id, cost, lone, sum(cost) over (order by number) - cost as before,
               count(*) filter (where lone) over (order by number) as huge_ones
        from shared where own < bytes or own + cost = 0) s
    where case when lone then huge_ones = 1 else cost = 0 or before < %b end),
leased as (
    update outbox.deliveries d set lease = %b, attempts = least(attempts + 1, {MAX_ATTEMPTS}), due_at = {LEASE_END},
        boost_seconds = null
    where d.id = any(array(select id from fitting))
    returning d.id, d.event_seq, d.subscription_id, d.attempts, d.event_bytes, d.lane)
{_LEASED_COLUMNS}, sized.due_at {_LEASED_FROM}
join sized on sized.id = d.id
order by sized.number"""


async def claim(
    database: Database,
    slots: Sequence[tuple[bytes, int]],
    limit: int,
    byte_budget: int,
    lease: int,
    shares: Sequence[tuple[int, bool]] = (),
    slack_seconds: float = LEASE_SLACK_SECONDS,
    marks: Sequence[Mark] = (),
) -> list[Leased]:
    """due → leased: lease the oldest due rows of each subscription, and return them, the oldest of each first.

    Bytes are those of payloads that are neither small nor huge. A budget or a share above 0 brings one row at
    least, since its last row may go beyond it. A claim brings one huge row at most.

    Args:
        database: the data plane's.
        slots: (subscription id, rows at most), in the order of their turns.
        limit: rows of all.
        byte_budget: bytes of all.
        lease: the new lease.
        shares: for each slot (bytes at most, whether it may have a huge row); none: `byte_budget`, yes.
        slack_seconds: how much longer than its attempt's timeout a lease lasts.
        marks: for each slot, where its rows are looked for; none: from the first on.
    """
    ids, counts = zip(*slots, strict=True)
    budgets, huge = zip(*(shares or [(byte_budget, True)] * len(slots)), strict=True)
    dues, row_ids = zip(*(marks or [FIRST] * len(slots)), strict=True)
    asked = (Uuids(ids), Integers(counts), Bigints(budgets), Integers([int(may) for may in huge]))
    bounds = (Timestamps(dues), Uuids(row_ids), limit, byte_budget, lease, slack_seconds)
    return await with_events(database, await database.fetch(_CLAIM, *asked, *bounds))


async def with_events(database: Database, rows: Sequence[Any]) -> list[Leased]:
    """Return the rows of LEASED with their events, read after the commit. Rows of one event share it."""
    bodies = await read_bodies(database, list(dict.fromkeys(row[1] for row in rows)))
    return [Leased(*(*row[:7], bodies.events.get(row[1]), bodies.unreadable.get(row[1]), *row[7:])) for row in rows]
