"""From due to leased: retries, and deliveries that fan_out had no room to lease."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.store.arrays import Integers, Uuids
from relay.store.lease import LEASE_END
from relay.store.rows import Leased, event_of
from relay.store.subscriptions import OPEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.event import EventParts
    from relay.store.database import Database

__all__ = ["ASKED", "LEASED_WITH_EVENT", "claim", "leased_rows"]

MAX_ATTEMPTS = 32_767  # the largest smallint; a schedule ends long before, but a person may disable and resume for ever

ASKED = f"""
asked as materialized (
    select a.id, a.slots from unnest(%b, %b) with ordinality a(id, slots, place)
    cross join lateral (select from outbox.subscriptions where id = a.id and {OPEN} limit 1) s
    order by a.place)"""

LEASED_WITH_EVENT = """
select d.id, d.event_seq, d.subscription_id, d.attempts, s.version, s.timeout_seconds,
       e.id, e.tenant, e.type, e.key, e.recorded_at, convert_to(e.payload, 'UTF8')
from leased d
cross join lateral (select version, timeout_seconds from outbox.subscriptions where id = d.subscription_id limit 1) s
left join lateral (select id, tenant, type, key, recorded_at, payload from outbox.events
                   where seq = d.event_seq limit 1) e on true
"""

# coalesce, not `lease is null`: with stale statistics the planner would take the partial index, and read the due rows
# of every other subscription.
_CLAIM = f"""
with {ASKED},
chosen as materialized (
    select c.id, c.event_seq from asked a cross join lateral (
        select id, event_seq from outbox.deliveries
        where subscription_id = a.id and due_at <= now() and coalesce(lease, -1) < 0
        order by due_at, id limit a.slots for no key update skip locked) c
    limit %b),
fitting as materialized (
    select id from (
        select c.id, sum(octet_length(e.payload)) over (rows unbounded preceding) - octet_length(e.payload) as before
        from chosen c left join lateral (select payload from outbox.events where seq = c.event_seq limit 1) e on true) s
    where coalesce(before, 0) < %b),
leased as (
    update outbox.deliveries d set lease = %b, attempts = least(attempts + 1, {MAX_ATTEMPTS}), due_at = {LEASE_END}
    where d.id = any(array(select id from fitting))
    returning d.id, d.event_seq, d.subscription_id, d.attempts)
{LEASED_WITH_EVENT}"""


async def claim(
    database: Database, slots: Sequence[tuple[bytes, int]], limit: int, byte_budget: int, lease: int
) -> list[Leased]:
    """due → leased: lease the oldest due rows of each subscription, and return them.

    `slots` are (subscription id, rows at most), in the order of their turns. `limit` is for the rows of all,
    `byte_budget` for their payloads together.
    """
    ids, counts = zip(*slots, strict=True)
    return leased_rows(await database.fetch(_CLAIM, Uuids(ids), Integers(counts), limit, byte_budget, lease))


def leased_rows(rows: Sequence[Any]) -> list[Leased]:
    """Return the rows of a claim. Rows of one event share one value, so that its body is made once."""
    events: dict[int, EventParts | None] = {}
    for row in rows:
        if row[1] not in events:
            events[row[1]] = event_of(row[6:])
    return [Leased(*(*row[:6], events[row[1]])) for row in rows]
