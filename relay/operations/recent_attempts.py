"""Counts of recent attempts in equal lengths of time: a bounded sample, for charts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.tenancy import own
from outbox.ids import SubscriptionId

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

__all__ = ["Bucket", "count_recent_attempts"]

_MOST_SUBSCRIPTIONS = 200
_MOST_OF_ONE = 5_000
_MOST_OF_EACH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What was attempted in `seconds` from `start` on; percentiles are milliseconds, None without an attempt."""

    start: datetime
    seconds: int
    delivered: int
    failed: int
    p50: float | None
    p95: float | None
    p99: float | None


_COUNT = text(f"""
with bounds as (
    select date_bin(make_interval(secs => :seconds), clock_timestamp(), timestamptz '2000-01-01Z')
           - make_interval(secs => :seconds * (:buckets - 1)) as first),
starts as (
    select first + make_interval(secs => :seconds * place) as start
    from bounds, generate_series(0, :buckets - 1) place),
chosen as (
    select id from outbox.subscriptions
    where (cast(:subscription as uuid) is null or id = :subscription) and {own("tenant")}
    order by updated_at desc limit {_MOST_SUBSCRIPTIONS}),
recent as materialized (
    select a.at, a.verdict, a.milliseconds from chosen c cross join bounds cross join lateral (
        select at, verdict, milliseconds from outbox.attempts
        where subscription_id = c.id and at >= bounds.first
        order by at desc limit :most) a
    where a.verdict not in ('test', 'cancelled'))
select s.start, :seconds as seconds,
       count(r.at) filter (where r.verdict = 'delivered') as delivered,
       count(r.at) filter (where r.verdict <> 'delivered') as failed,
       percentile_disc(0.5) within group (order by r.milliseconds) as p50,
       percentile_disc(0.95) within group (order by r.milliseconds) as p95,
       percentile_disc(0.99) within group (order by r.milliseconds) as p99
from starts s left join recent r on r.at >= s.start and r.at < s.start + make_interval(secs => :seconds)
group by s.start order by s.start
""")  # noqa: S608 - the parts are constants


def count_recent_attempts(
    connection: Connection, tenant: str | None, *, subscription: UUID | str | None, seconds: int, buckets: int
) -> list[Bucket]:
    """Return so many buckets of so many seconds, the last one open, of one subscription or of the tenant's newest.

    Of one subscription at most the newest 5,000 attempts are counted, of several at most 500 each.
    """
    parameters = {
        "asking": tenant, "subscription": None if subscription is None else SubscriptionId.of(subscription),
        "seconds": seconds, "buckets": buckets, "most": _MOST_OF_EACH if subscription is None else _MOST_OF_ONE,
    }  # fmt: skip
    return [Bucket(**row) for row in connection.execute(_COUNT, parameters).mappings()]
