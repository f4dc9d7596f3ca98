"""The health of endpoints: what attempts say of it, and what housekeeping does. probes.py has the claim of probes.

            failure rate reached                    probe_at passed: claim_probes
    closed ──────────────────────▶ open ◀───────────────────────────────────────▶ half-open, one probe is leased
       ▲                             ▲      the probe fails, or its lease ends          │
       └─────────────────────────────┼──────────────── the probe succeeds ──────────────┘
    a person resumes, or another URL ┘  (the row is deleted: closed, and nothing is noted)

A row of outbox.health stands where failures are noted, and none for an endpoint that answers. Half-open is no state of
its own: it is open, with a probe_at that the claim of the probe moved beyond the end of its lease. What is due while
the breaker is open keeps its due_at and its attempts: it is not claimed, so nothing is charged and nothing dies. Its
schedule goes on where it was, and a probe is always a delivery that was due by its own schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.model.health_sign import RESERVED, Sign, sign_of
from relay.store.arrays import Integers, Texts, Uuids
from relay.store.claims import DUE_SINCE
from relay.store.subscriptions import SENDABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.settlement import Settlement

__all__ = ["ADD_NOTED", "FORGET_WELL", "MARK_LATE", "MOVE_HEALTH", "tallies", "tally_columns"]


class _Tally:
    """What a batch says of one subscription's endpoint, at one URL."""

    __slots__ = ("failed_probes", "failures", "good_probes", "quiet", "slow_downs", "successes")

    def __init__(self) -> None:
        self.failures = self.successes = self.slow_downs = 0
        self.failed_probes = self.good_probes = 0
        self.quiet = True

    def add(self, row: Settlement, sign: Sign) -> None:
        """Count one result."""
        probe = row.delivery.probe
        if sign is Sign.SUCCESS:
            self.successes += 1
            self.good_probes += probe
            return
        self.failures += sign is Sign.FAILURE
        self.slow_downs += sign is Sign.SLOW_DOWN
        self.failed_probes += probe
        event = row.delivery.event
        self.quiet = self.quiet and event is not None and event.type.startswith(RESERVED)


def tallies(rows: Sequence[Settlement]) -> dict[tuple[bytes, str], _Tally]:
    """Return what these results say of their endpoints, by (subscription id, URL); mostly nothing."""
    found: dict[tuple[bytes, str], _Tally] = {}
    for row in rows:
        if row.noted:
            sign = sign_of(row.outcome, row.status, row.verdict)
            if sign is not Sign.NOTHING or row.delivery.probe:
                asked_of = (row.delivery.subscription_id, row.url)
                found.setdefault(asked_of, _Tally()).add(row, sign)
    return found


def tally_columns(found: dict[tuple[bytes, str], _Tally]) -> tuple[object, ...]:
    """Return the parameters of ADD_NOTED and of MOVE_HEALTH."""
    ids, urls = zip(*found, strict=True)
    told = found.values()
    return (
        Uuids(ids),
        Texts([url.encode() for url in urls]),
        Integers([one.failures for one in told]),
        Integers([one.successes for one in told]),
        Integers([one.slow_downs for one in told]),
        Integers([one.failed_probes for one in told]),
        Integers([one.good_probes for one in told]),
        Integers([one.quiet for one in told]),
    )


# Only about the URL that was asked. Sorted by id, in both statements: relays that settle wait for each other in one
# order.
_TOLD = """
told as materialized (
    select a.*, s.recovery_seconds
    from unnest(%b, %b, %b, %b, %b, %b, %b, %b)
        a(id, url, failures, successes, slow_downs, failed_probes, good_probes, quiet)
    cross join lateral (select recovery_seconds from outbox.subscriptions
                        where id = a.id and url = a.url and removed_at is null limit 1) s
    order by a.id)"""

ADD_NOTED = f"""
with {_TOLD}
insert into outbox.health (subscription_id)
select id from told where failures + slow_downs > 0
on conflict do nothing
returning subscription_id
"""
"""A row for each endpoint that failed and has none."""

# `noted` locks the rows; `counted` has the window with this batch in it; `turned` the subscriptions to disable or to
# enable again, unless somebody has locked them: then the next result does it. The rest is written in one go.
MOVE_HEALTH = f"""
with {_TOLD},
rule as materialized (
    select max(value) filter (where name = 'breaker_failure_percent') as percent,
           max(value) filter (where name = 'breaker_attempts') as least_attempts,
           make_interval(secs => max(value) filter (where name = 'breaker_window_seconds')) as span,
           (max(value) filter (where name = 'breaker_pause_seconds'))::integer as pause,
           (max(value) filter (where name = 'breaker_pause_max_seconds'))::integer as pause_max,
           make_interval(secs => nullif(max(value) filter (where name = 'disable_after_seconds'), 0)) as worn_after
    from outbox.settings),
noted as materialized (
    select t.id, t.failures + t.slow_downs > 0 as failed, t.failed_probes > 0 as failed_probe,
           t.good_probes > 0 as good_probe, t.quiet > 0 as quietly, t.recovery_seconds, c.now,
           t.failures as new_failures, t.successes as new_successes, h.*
    from told t
    cross join lateral (select * from outbox.health where subscription_id = t.id limit 1 for update) h
    cross join lateral (select clock_timestamp() as now) c),
counted as materialized (
    select n.*, r.*, w.*,
           n.new_failures > 0 and r.percent > 0 and w.all_failures + w.all_successes >= r.least_attempts
               and 100 * w.all_failures >= r.percent * (w.all_failures + w.all_successes) as too_many,
           case when n.new_successes > 0 then null when n.failed then coalesce(n.failing_since, n.now)
                else n.failing_since end as since
    from noted n cross join rule r
    cross join lateral (
        select e.expired, n.new_failures + case when e.expired then 0 else n.failures end as all_failures,
               n.new_successes + case when e.expired then 0 else n.successes end as all_successes
        from (select n.window_from < n.now - r.span as expired) e) w),
turned as materialized (
    select c.id, c.since, s.enabled from counted c
    cross join lateral (
        select disabled_at is null as enabled from outbox.subscriptions where id = c.id
          and case when c.disabled_at is null then disabled_at is null and c.failed and c.since + c.worn_after <= c.now
                   else disabled_at is not null and c.good_probe end
        limit 1 for no key update skip locked) s),
became as materialized (
    select c.*, coalesce(t.enabled, false) as worn,
           c.good_probe and (c.disabled_at is null or t.id is not null) as closes,
           case when c.opened_at is null then c.pause
                when c.failed_probe then least(2 * c.pause_seconds, greatest(c.pause, c.pause_max))
                else c.pause_seconds end as next_pause
    from counted c left join turned t on t.id = c.id),
moved as (
    update outbox.health h set
        failures = case when b.closes then 0 else b.all_failures end,
        successes = case when b.closes then 0 else b.all_successes end,
        window_from = case when b.expired or b.closes then b.now else b.window_from end,
        failing_since = b.since,
        warned_at = case when b.since is null then null
                         when b.failed and b.since + b.worn_after / 2 <= b.now then coalesce(b.warned_at, b.now)
                         else b.warned_at end,
        opened_at = case when b.closes then null when b.too_many or b.worn then coalesce(b.opened_at, b.now)
                         else b.opened_at end,
        pause_seconds = case when not b.closes and (b.too_many or b.worn or b.opened_at is not null)
                             then b.next_pause end,
        probe_at = case
            when b.closes or b.opened_at is null and not b.too_many and not b.worn then null
            when b.worn or b.disabled_at is not null and b.failed_probe
            then b.now + make_interval(secs => nullif(b.recovery_seconds, 0))
            when b.opened_at is null or b.failed_probe or b.good_probe
            then b.now + make_interval(secs => b.next_pause * (1 + 0.1 * random()))
            else b.probe_at end,
        disabled_at = case when b.closes then null when b.worn then b.now else b.disabled_at end,
        quiet = case when b.failed then b.quietly and (b.failing_since is null or h.quiet) else h.quiet end,
        changed_at = b.now
    from became b where h.subscription_id = b.id and h.subscription_id = any(array(select id from became))),
switched as (
    update outbox.subscriptions s set
        disabled_at = case when t.enabled then clock_timestamp() end,
        disabled_reason = case when t.enabled then 'every attempt has failed since '
            || to_char(t.since at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') end
    from turned t where s.id = t.id and s.id = any(array(select id from turned))
    returning s.id, s.disabled_at)
select id from switched where disabled_at is not null
"""
"""It returns the subscriptions that it disabled."""


FORGET_WELL = """
with gone as (
    delete from outbox.health where subscription_id = any(array(
        select subscription_id from outbox.health h
        where opened_at is null and failing_since is null and late_at is null
              and changed_at < clock_timestamp() - interval '10 minutes'
           or not exists (select from outbox.subscriptions s where s.id = h.subscription_id)
        limit %(batch)s for update skip locked))
    returning subscription_id)
select count(*) from gone
"""
"""Endpoints that answer again need no row. Run it again until it deletes none."""

# Late by its oldest due delivery, with one look-up a subscription; no longer late when that is half as old.
_AMONG = 100  # those with a priority stand before it
_OLDEST_DUE = f"""
    select min(since) as due_at from (
        select {DUE_SINCE} as since from outbox.deliveries
        where subscription_id = s.id and due_at <= now() and lease is null order by due_at limit {_AMONG}) first"""
MARK_LATE = f"""
with rule as materialized (
    select make_interval(secs => nullif(value, 0)) as after from outbox.settings where name = 'late_after_seconds'),
late as materialized (
    select s.id from outbox.subscriptions s cross join lateral ({_OLDEST_DUE}) d
    where {SENDABLE} and d.due_at < now() - (select after from rule)
      and not exists (select from outbox.sending where paused_at is not null) and not (select outbox.is_copied())
      and not exists (select from outbox.health h where h.subscription_id = s.id and h.late_at is not null)
    order by s.id limit %(batch)s),
over as (
    update outbox.health h set late_at = null
    where late_at is not null and not exists (
        select from outbox.subscriptions s cross join lateral ({_OLDEST_DUE}) d
        where s.id = h.subscription_id and {SENDABLE} and d.due_at < now() - (select after from rule) / 2)),
found as (
    insert into outbox.health as h (subscription_id, late_at) select id, clock_timestamp() from late
    on conflict (subscription_id) do update set late_at = excluded.late_at
    returning h.subscription_id)
select count(*) from found
"""
"""Notes, once, each subscription that may be sent to and whose backlog is late. Run it again until it finds none."""
