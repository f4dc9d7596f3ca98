"""What became of an event's deliveries, one fate for each subscription that it went to.

A delivery that a person cancelled has an attempt row `cancelled`. One that went with its subscription leaves no row. It
is told by what is left: as many subscriptions matched as the resolution says, and each one whose delivery ended in
another way left an attempt, a delivery or a dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

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


# One pass over what is outstanding, which has no index by event, for all events; the rest is read by index.
_FATES = """
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
    where event_seq = any(cast(:seqs as bigint[])) and subscription_id is not null),
fates as (
    select event_seq, bool_or(outstanding) as outstanding, bool_or(delivered) as delivered, bool_or(dead) as dead,
           bool_or(buried) as buried, bool_or(cancelled) as cancelled
    from seen group by event_seq, subscription_id),
counted as (
    select event_seq, count(*) as seen, count(*) filter (where delivered) as delivered,
           count(*) filter (where outstanding) as outstanding,
           count(*) filter (where buried and not (outstanding or delivered or dead or cancelled)) as purged,
           count(*) filter (where cancelled and not (outstanding or delivered or dead)) as cancelled_by_hand,
           count(*) filter (where not (outstanding or delivered or dead or buried or cancelled)) as lost
    from fates group by event_seq)
select coalesce(c.seen, 0) as seen, coalesce(c.delivered, 0) as delivered,
       coalesce(c.outstanding, 0) as outstanding, coalesce(c.purged, 0) as purged,
       coalesce(c.cancelled_by_hand, 0) as cancelled_by_hand, coalesce(c.lost, 0) as lost,
       (select count(*) from outbox.dead_letters l where l.event_seq = q.seq) as dead,
       exists (select from outbox.audit u, outbox.events e
               where e.seq = q.seq and u.action = 'replayed' and u.details -> 'to' is not null
                 and u.details @> jsonb_build_object('ids', jsonb_build_array(outbox.text_id('evt', e.id))))
           as redirected
from unnest(cast(:seqs as bigint[])) with ordinality q(seq, place) left join counted c on c.event_seq = q.seq
order by q.place
"""


def fates(connection: Connection, seqs: Sequence[int]) -> list[Fates]:
    """Return what became of each of these events, by their numbers and in their order."""
    return [Fates(**row) for row in connection.execute(text(_FATES), {"seqs": list(seqs)}).mappings()]
