"""How many deliveries are due, wait, are parked or leased: exact or a bound, from the rows, never from statistics.

Each number is counted up to a bound along an index, all in one snapshot, so that it is right while numbers fall, after
a load that nobody analysed, and at any backlog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from relay.operations.status.documents import Count, Deliveries
from relay.store.claims import DUE_SINCE
from relay.store.subscriptions import SENDABLE

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["EXACT_UP_TO", "bounded", "oldest_since", "read_deliveries"]

EXACT_UP_TO = 10_000
_LEASES_AMONG = 20_000
_URGENT_MAX = 100  # the oldest is looked for among so many: those with a priority stand before it


def oldest_since(also: str = "true") -> str:
    """Return a query: since when the oldest due delivery of a subscription s is due; no row where none is.

    `also` is one more condition on the delivery. A first one without a priority is the oldest, so nothing behind it is
    read: thousands of subscriptions may be late.
    """
    return f"""
select case when first.boost_seconds is null then first.due_at else (
           select min(since) from (
               select {DUE_SINCE} as since from outbox.deliveries
               where subscription_id = s.id and due_at <= statement_timestamp() and {also}
               order by due_at limit {_URGENT_MAX}) urgent) end as since
from (select due_at, boost_seconds from outbox.deliveries
      where subscription_id = s.id and due_at <= statement_timestamp() and {also}
      order by due_at limit 1) first
"""  # noqa: S608 - the parts are constants


# No index leads to leased rows, and one would cost every claim. A lease that runs is due within the hour, one that
# ended was due a moment ago: both are looked for from now on, along (subscription_id, due_at).
_COUNTS = text(f"""
with subscriptions as materialized (select id, {SENDABLE} as sendable from outbox.subscriptions),
coming as materialized (
    select d.lease from subscriptions s cross join lateral (
        select lease from outbox.deliveries where subscription_id = s.id
          and due_at > statement_timestamp() and due_at <= statement_timestamp() + interval '1 hour'
        order by due_at limit :among) d
    limit :among),
past as materialized (
    select d.lease from subscriptions s cross join lateral (
        select lease from outbox.deliveries where subscription_id = s.id and due_at <= statement_timestamp()
        order by due_at desc limit :among) d
    limit :among),
due as materialized (
    select s.sendable from subscriptions s cross join lateral (
        select from outbox.deliveries where subscription_id = s.id and due_at <= statement_timestamp()
          and lease is null order by due_at limit :bound) d
    where s.sendable limit :bound),
not_sendable as materialized (
    select from subscriptions s cross join lateral (
        select from outbox.deliveries where subscription_id = s.id and due_at <= statement_timestamp()
          and lease is null order by due_at limit :bound) d
    where not s.sendable limit :bound)
select (select count(*) from (select from outbox.deliveries where lease is null and due_at <= statement_timestamp()
                              order by due_at limit :bound) b) as due,
       (select count(*) from (select from outbox.deliveries
                              where lease is null and due_at > statement_timestamp() and due_at < 'infinity'
                              order by due_at limit :bound) b) as waiting,
       (select count(*) from (select from outbox.deliveries where lane is not null and not isfinite(due_at)
                              order by subscription_id, lane limit :bound) b) as parked,
       (select count(*) from due) as sendable, (select count(*) from not_sendable) as not_sendable,
       (select count(lease) from coming) as leased, (select count(*) from coming) as coming,
       (select count(lease) from past) as ended, (select count(*) from past) as past,
       coalesce(cast(:oldest as double precision), (
           select extract(epoch from clock_timestamp() - min(d.since)) from subscriptions s
           cross join lateral ({oldest_since()}) d where s.sendable)::double precision) as oldest_seconds
""")  # noqa: S608 - the parts are constants

# Along an index also where the planner thinks that a table without statistics is quicker to read whole.
_BY_INDEX = text("""
select set_config(name, case when :only then 'off' else reset_val end, true) from pg_catalog.pg_settings
where name in ('enable_seqscan', 'enable_bitmapscan', 'jit')
""")


def bounded(found: int, bound: int) -> Count:
    """Return a count of rows of which at most bound + 1 were looked at."""
    return Count(min(found, bound), exact=found <= bound, at_least=found > bound)


def read_deliveries(
    connection: Connection, tenant: str | None, gone: int | None, oldest_seconds: float | None = None
) -> Deliveries:
    """Return counts by state. For the operator only.

    `gone`: how many leases relays that are gone had at their last sign of life; None where no relay lives, so all are.
    `oldest_seconds`: for how long the oldest is due, where that is known: to find it asks every subscription.
    """
    operator_only(tenant, "status")
    connection.execute(_BY_INDEX, {"only": True})
    row = connection.execute(
        _COUNTS, {"bound": EXACT_UP_TO + 1, "among": _LEASES_AMONG, "oldest": oldest_seconds}
    ).one()
    connection.execute(_BY_INDEX, {"only": False})
    left = row.leased if gone is None else min(gone, row.leased)
    return Deliveries(
        due=bounded(row.due, EXACT_UP_TO),
        open=bounded(row.sendable, EXACT_UP_TO),
        closed=bounded(row.not_sendable, EXACT_UP_TO),
        waiting=bounded(row.waiting, EXACT_UP_TO),
        parked=bounded(row.parked, EXACT_UP_TO),
        leased=_found(row.leased - left, row.coming),
        left=_found(left, row.coming),
        ended=_found(row.ended, row.past),
        oldest_due_seconds=row.oldest_seconds,
    )


def _found(leases: Any, among: int) -> Count:
    return Count(leases, exact=among < _LEASES_AMONG, at_least=among >= _LEASES_AMONG)
