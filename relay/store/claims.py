"""From due to leased: retries, and deliveries that fan_out had no room to lease."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.store.arrays import Bigints, Integers, Uuids
from relay.store.bodies import read_bodies
from relay.store.lease import LEASE_END
from relay.store.rows import Leased
from relay.store.subscriptions import OPEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Database

__all__ = ["ASKED", "LEASED", "claim", "with_events"]

MAX_ATTEMPTS = 32_767  # the largest smallint; a schedule ends long before, but a person may disable and resume for ever
UNKNOWN_BYTES = 32_768  # what a delivery counts as that a relay of a former version made: it noted no size

ASKED = f"""
asked as materialized (
    select a.id, a.slots, a.share from unnest(%b, %b, %b) with ordinality a(id, slots, share, place)
    cross join lateral (select from outbox.subscriptions where id = a.id and {OPEN} limit 1) s
    order by a.place)"""

LEASED = """
select d.id, d.event_seq, d.subscription_id, d.attempts, s.version, s.timeout_seconds
from leased d
cross join lateral (select version, timeout_seconds from outbox.subscriptions where id = d.subscription_id limit 1) s
"""

# coalesce, not `lease is null`: with stale statistics the planner would take the partial index, and read the due rows
# of every other subscription.
# No event is looked up: planning for every leaf of events would take longer than the claim, and what a payload weighs
# stands in the delivery. A subscription's share ends its rows only, so that its large bodies leave the others theirs.
_CLAIM = f"""
with {ASKED},
chosen as materialized (
    select c.id, c.size from asked a cross join lateral (
        select id, size from (
            select id, size, sum(size) over (order by due_at, id rows unbounded preceding) - size as before from (
                select id, due_at, coalesce(event_bytes, {UNKNOWN_BYTES}) as size from outbox.deliveries
                where subscription_id = a.id and due_at <= now() and coalesce(lease, -1) < 0
                order by due_at, id limit a.slots for no key update skip locked) found) counted
        where before < a.share) c
    limit %b),
fitting as materialized (
    select id from (select id, sum(size) over (rows unbounded preceding) - size as before from chosen) s
    where before < %b),
leased as (
    update outbox.deliveries d set lease = %b, attempts = least(attempts + 1, {MAX_ATTEMPTS}), due_at = {LEASE_END}
    where d.id = any(array(select id from fitting))
    returning d.id, d.event_seq, d.subscription_id, d.attempts)
{LEASED}"""


async def claim(
    database: Database,
    slots: Sequence[tuple[bytes, int]],
    limit: int,
    byte_budget: int,
    lease: int,
    *,
    shares: Sequence[int] | None = None,
) -> list[Leased]:
    """due → leased: lease the oldest due rows of each subscription, and return them.

    Args:
        database: the data plane's.
        slots: (subscription id, rows at most), in the order of their turns.
        limit: rows of all subscriptions at most.
        byte_budget: bytes of their payloads together; the row that passes it is the last.
        lease: the new lease.
        shares: bytes of payloads for each of `slots`; the row that passes its share is the last of its subscription.
            None: each may use the whole budget.
    """
    ids, counts = zip(*slots, strict=True)
    asked = (Uuids(ids), Integers(counts), Bigints(shares if shares is not None else [byte_budget] * len(ids)))
    return await with_events(database, await database.fetch(_CLAIM, *asked, limit, byte_budget, lease))


async def with_events(database: Database, rows: Sequence[Any]) -> list[Leased]:
    """Return the rows of LEASED with their events, read after the commit. Rows of one event share it."""
    bodies = await read_bodies(database, list(dict.fromkeys(row[1] for row in rows)))
    return [Leased(*(*row, bodies.events.get(row[1]), bodies.unreadable.get(row[1]))) for row in rows]
