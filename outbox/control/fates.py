"""What became of an event's deliveries, one fate for each subscription that it went to.

A delivery that a person cancelled has an attempt row `cancelled`. One that went with its subscription leaves no row. It
is told by what is left: as many subscriptions matched as the resolution says, and each one whose delivery ended in
another way left an attempt, a delivery or a dead letter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.ids import EventId

__all__ = ["Fates", "fates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """Counts of subscriptions, but `dead` of dead letters. A replay may count one as delivered and outstanding.

    seen: those that left anything. lost: those of them that are neither outstanding, delivered, dead, purged nor
    cancelled by hand. purged: whose dead letter a person took away. redirected: whether a replay sent it to another
    subscription. What was cancelled by hand and is on its way again, or arrived all the same, counts as that.
    """

    seen: int
    delivered: int
    outstanding: int
    dead: int
    purged: int
    cancelled_by_hand: int
    lost: int
    redirected: bool

    def cancelled(self, matched: int | None) -> int | None:
        """Return how many were cancelled, of so many that matched; None where nothing tells.

        That is so after a replay to another subscription: nothing says which of those seen are the event's own. A
        dead letter `crash` that was purged counts as cancelled: it may have left no attempt.
        """
        if matched is None or self.redirected or matched < self.seen:
            return None
        return matched - self.seen + self.lost + self.cancelled_by_hand


# One pass over what is outstanding, which has no index by event, for all events; the rest is read by index. A dead
# letter of an event that could not be resolved is of no subscription.
_FATES = text("""
with outstanding as materialized (
    select event_seq, subscription_id from outbox.deliveries where event_seq = any(cast(:seqs as bigint[]))),
seen as (
    select o.event_seq, o.subscription_id, s.id is not null as outstanding, false as delivered, false as dead,
           false as buried, false as cancelled
    from outstanding o left join outbox.subscriptions s on s.id = o.subscription_id and s.removed_at is null
    union all
    select event_seq, subscription_id, false, verdict = 'delivered', false, verdict = 'dead',
           verdict = 'cancelled' from outbox.attempts
    where event_seq = any(cast(:seqs as bigint[])) and verdict <> 'test'
    union all
    select event_seq, subscription_id, false, false, true, false, false from outbox.dead_letters
    where event_seq = any(cast(:seqs as bigint[]))),
fates as (
    select event_seq, subscription_id is not null as known, bool_or(outstanding) as outstanding,
           bool_or(delivered) as delivered, count(*) filter (where dead) as dead, bool_or(buried) as buried,
           bool_or(cancelled) as cancelled, not bool_or(outstanding or delivered or dead) as over
    from seen group by event_seq, subscription_id)
select event_seq, cast(sum(dead) as bigint) as dead, count(*) filter (where known) as seen,
       count(*) filter (where known and delivered) as delivered,
       count(*) filter (where known and outstanding) as outstanding,
       count(*) filter (where known and over and buried and not cancelled) as purged,
       count(*) filter (where known and over and cancelled) as cancelled_by_hand,
       count(*) filter (where known and over and not (buried or cancelled)) as lost
from fates group by event_seq
""")
# Of all events in one search of the index; `"to" is not null` is a replay to a subscription that was named.
_REDIRECTED = text("""
select distinct named.id from outbox.audit u cross join lateral jsonb_array_elements_text(u.details -> 'ids') named(id)
where u.details @> any(cast(:asked as jsonb[])) and u.action = 'replayed' and u.details -> 'to' is not null
  and named.id = any(cast(:ids as text[]))
""")
_COUNTS = tuple(field.name for field in fields(Fates) if field.name != "redirected")


def fates(connection: Connection, events: Mapping[int, UUID]) -> list[Fates]:
    """Return what became of each of these events, in their order; their ids are given by their numbers."""
    names = {seq: str(EventId.of(id_)) for seq, id_ in events.items()}
    found = {row.event_seq: row for row in connection.execute(_FATES, {"seqs": list(events)})}
    asked = {"ids": list(names.values()), "asked": [json.dumps({"ids": [name]}) for name in names.values()]}
    redirected = set(connection.execute(_REDIRECTED, asked).scalars())
    return [_fates(found.get(seq), redirected=name in redirected) for seq, name in names.items()]


def _fates(row: Any, *, redirected: bool) -> Fates:
    """Return the fates of a row; of an event that left nothing there is none."""
    return Fates(**{name: 0 if row is None else getattr(row, name) for name in _COUNTS}, redirected=redirected)
