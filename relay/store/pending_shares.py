"""Whose events a fan_out takes while it is behind: some of each tenant, the urgent ones first, and the oldest.

Pending events of a tenant, or with a priority, have an index in that order (0011). It is walked group by group, a group
being a priority and a tenant: one probe for each, whatever waits in it.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CHOSEN", "GROUPS_MAX", "HAS_GROUPS", "Shares"]

GROUPS_MAX = 200  # tenants of one take, and as many urgent groups; the others are next in turn
_GROUPED = "(tenant <> '' or priority > 0)"


# Where a tenant has a subscription that asks for order, its events with a key are taken in their order among
# themselves: an urgent one waits for its turn by number, and no other goes ahead of an urgent one that waits so.
def _in_order(tenant: str, is_urgent: str) -> str:
    """Return the condition that a pending row of this tenant may be taken ahead of older ones."""
    return f"""case when not keyed then true
        when not exists (select from outbox.subscriptions
                         where ordered and removed_at is null and tenant = any(array[{tenant}, '*'])) then true
        when {is_urgent} then false
        else coalesce(event_seq < (
            select min(event_seq) from outbox.pending
            where {_GROUPED} and -priority = any('{{-3,-2,-1}}') and tenant = {tenant} and keyed), true) end"""


class Shares(NamedTuple):
    """How a take is shared out.

    groups: events of all groups together, at least one each. after_tenant: the tenant after which this round begins.
    blank: events without tenant and priority, which are in no group; they are looked for above `blank_after`.
    """

    groups: int
    after_tenant: str
    blank: int
    blank_after: int

    def parameters(self, after_seq: int, up_to_seq: int, limit: int) -> tuple[object, ...]:
        """Return the parameters of CHOSEN, for a take of `limit` events between these numbers."""
        bounds = (after_seq, up_to_seq)
        blank = (max(after_seq, self.blank_after), up_to_seq, self.blank)
        oldest = max(1, limit - self.groups - self.blank)
        return (self.after_tenant.encode(), self.groups, *bounds, *bounds, oldest, *blank)


def _round(name: str, turn: str, start: str, following: str) -> str:
    """Return the CTE that walks the groups with this condition on their turn, from `start` on.

    `following`: the condition on what comes behind the group `g`. Beside an equality of the first column it must not
    compare rows: an index scan would begin at the first row of that turn, and step over all that wait before `g`.
    """
    return f"""{name} as (
    (select -priority as turn, tenant, 1 as place from outbox.pending
     where {_GROUPED} and {turn} and {start} order by -priority, tenant limit 1)
    union all
    select next.turn, next.tenant, g.place + 1 from {name} g cross join lateral (
        select -priority as turn, tenant from outbox.pending
        where {_GROUPED} and {turn} and {following}
        order by -priority, tenant limit 1) next
    where g.place < {GROUPS_MAX})"""


CHOSEN = f"""recursive
{_round("urgent", "-priority < 0", "true", "(-priority, tenant) > (g.turn, g.tenant)")},
{_round("ordinary", "-priority = 0", "tenant > convert_from(%b, 'UTF8')", "tenant > g.tenant")},
groups as materialized (
    select turn, tenant, greatest(1, %b / count(*) over ()) as share
    from (select turn, tenant from urgent union all select turn, tenant from ordinary) g),
chosen as (
    select c.event_seq from groups g cross join lateral (
        select event_seq from outbox.pending
        where {_GROUPED} and -priority = g.turn and tenant = g.tenant and event_seq > %b and event_seq <= %b
          and {_in_order("g.tenant", "g.turn < 0")}
        order by event_seq limit g.share) c
    union select event_seq from (
        select event_seq from outbox.pending
        where event_seq > %b and event_seq <= %b order by event_seq limit %b) oldest
    union select event_seq from (
        select event_seq from outbox.pending
        where event_seq > %b and event_seq <= %b and tenant = '' and priority = 0 and {_in_order("''", "false")}
        order by event_seq limit %b) blank),
last_tenant as (select case when count(*) = {GROUPS_MAX} then max(tenant) end as tenant from ordinary)
"""
"""CTEs: `chosen` has the numbers of the events, `last_tenant` where the next round begins; null: anew."""

HAS_GROUPS = f"exists (select from outbox.pending where {_GROUPED})"
"""Whether some pending event has a tenant or a priority. Where none ever had, its index is empty."""
