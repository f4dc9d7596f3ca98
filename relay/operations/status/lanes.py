"""Lanes that a failing head blocks, and subscriptions whose backlog is being put in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.tenancy import operator_only, own
from outbox.ids import DeliveryId, EventId, SubscriptionId
from relay.operations.status.documents import BlockedLane, SortingSubscription

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

__all__ = ["blocked_of", "find_blocked", "find_sorting"]

_SAMPLE = 2000
_NAMED = 5

# The heads that wait the longest for their next attempt have failed the most often: they are looked for from the end of
# the index, before what is parked.
_ANY = """
    select id, event_seq, subscription_id, lane, attempts, due_at from outbox.deliveries
    where lease is null and due_at > now() and due_at < 'infinity'
    order by due_at desc limit :sample"""
# A head that is tried at this moment, or is due, blocks as well.
_OF_ONE = """
    select id, event_seq, subscription_id, lane, attempts, due_at from outbox.deliveries
    where subscription_id = :id and due_at < 'infinity' order by due_at desc limit :sample"""
_BLOCKED = """
with heads as materialized ({heads}),
blocking as materialized (
    select h.* from heads h
    where h.lane is not null and h.attempts > 0
      and (select true from outbox.deliveries d where d.subscription_id = h.subscription_id and d.lane = h.lane
           and not isfinite(d.due_at) limit 1)
    order by h.attempts desc, h.due_at limit :named)
select b.*, s.shown_url as url, s.tenant, s.order_policy,
       (select count(*) from (select from outbox.deliveries d
            where d.subscription_id = b.subscription_id and d.lane = b.lane and not isfinite(d.due_at) limit 1001) w)
           as behind,
       a.since, l.error
from blocking b join outbox.subscriptions s on s.id = b.subscription_id
left join lateral (select min(at) as since from outbox.attempts where delivery_id = b.id) a on true
left join lateral (select coalesce(error, 'it answers ' || status, outcome) as error from outbox.attempts
                   where delivery_id = b.id order by at desc limit 1) l on true
where s.removed_at is null and {own}
order by b.attempts desc, b.due_at
"""

# With the numbers known when it is planned, it opens the leaves of these events only.
_EVENTS = text("select seq, id, key from outbox.events where seq = any(cast(:seqs as bigint[]))")


def find_blocked(connection: Connection, tenant: str | None) -> tuple[BlockedLane, ...]:
    """Return the five lanes whose heads failed the most often, of the 2,000 that wait the longest. Operator only."""
    operator_only(tenant, "status")
    return _blocked(connection, tenant, _ANY, {})


def blocked_of(connection: Connection, tenant: str | None, subscription_id: UUID | str) -> tuple[BlockedLane, ...]:
    """Return the same of one subscription, of the 2,000 of its deliveries that are due the last, parked ones apart."""
    return _blocked(connection, tenant, _OF_ONE, {"id": SubscriptionId.of(subscription_id)})


def _blocked(connection: Connection, tenant: str | None, heads: str, more: dict[str, UUID]) -> tuple[BlockedLane, ...]:
    statement = text(_BLOCKED.format(heads=heads, own=own("s.tenant")))
    rows = connection.execute(statement, {"sample": _SAMPLE, "named": _NAMED, "asking": tenant} | more).all()
    seqs = [row.event_seq for row in rows]
    events = {row.seq: row for row in connection.execute(_EVENTS, {"seqs": seqs})} if seqs else {}
    return tuple(
        BlockedLane(
            subscription_id=SubscriptionId.of(row.subscription_id),
            url=row.url,
            tenant=row.tenant,
            key=event.key if (event := events.get(row.event_seq)) else None,
            head=DeliveryId.of(row.id),
            event_id=EventId.of(event.id) if event else None,
            attempts=row.attempts,
            since=row.since,
            next_at=row.due_at,
            behind=row.behind,
            last_error=row.error,
            order_policy=row.order_policy,
        )
        for row in rows
    )


_SORTING = text("""
select id, sorting_since from outbox.subscriptions where sorting_since is not null and removed_at is null
order by sorting_since limit :named""")


def find_sorting(connection: Connection, tenant: str | None) -> tuple[SortingSubscription, ...]:
    """Return subscriptions whose backlog is being put in order, five at most. For the operator only."""
    operator_only(tenant, "status")
    rows = connection.execute(_SORTING, {"named": _NAMED})
    return tuple(
        SortingSubscription(subscription_id=SubscriptionId.of(row.id), since=row.sorting_since) for row in rows
    )
