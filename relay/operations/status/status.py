"""Status: what is stuck, why, and was anything lost? Bounded work, so that it answers at any backlog.

Counts are exact up to 10,000 and "10,000 or more" above. Nothing here scans a large table from end to end, and no query
runs for longer than a few seconds.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from relay.operations.adoption import read_home
from relay.operations.schema_findings import find_in_schema
from relay.operations.secrets import secrets_at_rest
from relay.operations.sending_switch import read_sending
from relay.operations.status.attention import findings_of
from relay.operations.status.breakers import read_breakers
from relay.operations.status.delivery_counts import EXACT_UP_TO, bounded, read_deliveries
from relay.operations.status.disabled_and_held import read_disabled, read_held, read_paused
from relay.operations.status.documents import (
    CANCELLED_DAYS,
    Attempts,
    Count,
    DeadLetters,
    Settings,
    Status,
    Subscriptions,
)
from relay.operations.status.lanes import find_blocked, find_sorting
from relay.operations.status.late_subscriptions import find_stuck
from relay.operations.status.limits import read_limits
from relay.operations.status.names import name_subscriptions
from relay.operations.status.outstanding import read_pending
from relay.operations.status.repeated_ids import find_repeated_ids
from relay.operations.status.running import read_running
from relay.operations.status.unmatched_events import read_unmatched
from relay.operations.status.unresolved_events import find_unresolved

if TYPE_CHECKING:
    from datetime import date

    from sqlalchemy import Connection

    from outbox.control.findings import Finding
    from relay.operations.status.running import Running

__all__ = ["status"]

_LAST = ("subscription.paused", "subscriptions.paused", "dead_letters.waiting")
_LIMIT = "select set_config('statement_timeout', '10s', true)"


def status(connection: Connection, tenant: str | None) -> Status:
    """Return the state of everything as one document; `findings` is what a person should look at. Operator only."""
    operator_only(tenant, "status")
    connection.execute(text(_LIMIT))
    running = read_running(connection, tenant)
    stuck = find_stuck(connection, tenant)  # the one that is behind for the longest has the oldest delivery
    oldest = max((one.behind_seconds for one in stuck if one.behind_seconds is not None), default=None)
    found = Status(
        at=connection.execute(text("select clock_timestamp()")).scalar_one(),
        sending=read_sending(connection, tenant),
        home=read_home(connection, tenant),
        schema_version=connection.execute(text(_VERSION)).scalar_one(),
        running=running,
        pending=read_pending(connection, tenant),
        deliveries=read_deliveries(connection, tenant, _leased_by_gone(running), oldest),
        dead_letters=_read_dead_letters(connection),
        cancelled=connection.execute(text(_CANCELLED), {"days": CANCELLED_DAYS}).scalar_one(),
        attempts=_read_last_attempts(connection),
        unmatched=read_unmatched(connection, tenant),
        unresolved=find_unresolved(connection, tenant),
        subscriptions=Subscriptions(**connection.execute(text(_SUBSCRIPTIONS)).mappings().one()),
        disabled=read_disabled(connection, tenant),
        paused=read_paused(connection, tenant),
        held=read_held(connection, tenant),
        limits=read_limits(connection, tenant),
        breakers=read_breakers(connection, tenant),
        default_leaves={name: _read_default_leaf(connection, name) for name in ("events", "attempts")},
        secrets=secrets_at_rest(connection, tenant),
        settings=Settings(**connection.execute(text(_SETTINGS)).mappings().one()),
        stuck=stuck,
        blocked_lanes=find_blocked(connection, tenant),
        sorting=find_sorting(connection, tenant),
        findings=(),
    )
    findings = (*findings_of(found), *find_repeated_ids(connection, tenant), *find_in_schema(connection, tenant))
    named = name_subscriptions(connection, tenant, findings)
    return replace(found, findings=tuple(sorted(named, key=_rank)))


def _rank(finding: Finding) -> tuple[bool, bool]:
    """Return what findings are sorted by: what a person did, and what is over, comes after what goes wrong now."""
    return finding.severity == "note", finding.code in _LAST


def _leased_by_gone(running: Running) -> int | None:
    """Return how many leases the relays that stopped within the hour had, or None where all are theirs."""
    return sum(relay.leased for relay in running.relays if not relay.alive) if running.alive else None


def _count_rows(connection: Connection, source: str) -> Count:
    statement = text(f"select count(*) from (select 1 {source} limit :bound) bounded")  # noqa: S608 - constants
    return bounded(connection.execute(statement, {"bound": EXACT_UP_TO + 1}).scalar_one(), EXACT_UP_TO)


_VERSION = "select max(version) from outbox.schema_migrations"

_SUBSCRIPTIONS = """
select count(*) filter (where removed_at is null and disabled_at is null and paused_at is null) as active,
       count(*) filter (where removed_at is null and disabled_at is null and paused_at is not null) as paused,
       count(*) filter (where removed_at is null and paused_at is not null and drops_while_paused) as dropping,
       count(*) filter (where removed_at is null and disabled_at is not null) as disabled,
       count(*) filter (where removed_at is not null) as removed,
       count(*) filter (where removed_at is null and tenant = '*') as every_tenant,
       count(*) filter (where removed_at is null and scheme = 'none') as unsigned
from outbox.subscriptions
"""


# What was cancelled has no index, who cancelled it is noted.
_CANCELLED = """
select cast(coalesce(sum(cast(details ->> 'count' as bigint)), 0) as bigint) from outbox.audit
where action = 'cancelled' and at > clock_timestamp() - make_interval(days => :days)
"""

_SETTINGS = """
select current_setting('fsync') as fsync, current_setting('synchronous_commit') as synchronous_commit
"""

_REASONS = """
select reason, count(*) as n, max(died_at) as newest_at from (
    select reason, died_at from outbox.dead_letters order by died_at desc limit :bound) newest
group by reason order by n desc, reason
"""


def _read_dead_letters(connection: Connection) -> DeadLetters:
    rows = connection.execute(text(_REASONS), {"bound": EXACT_UP_TO}).all()
    return DeadLetters(
        count=_count_rows(connection, "from outbox.dead_letters"),
        newest_at=max((row.newest_at for row in rows), default=None),
        reasons={row.reason: row.n for row in rows},
    )


# Nobody has rights on a leaf, so a day's leaf is read through its table. Only its last pages: rows are appended. A day
# without a leaf is in the default one.
_LEAVES = """
with sizes as (
    select c.relname, pg_relation_size(c.oid) / cast(current_setting('block_size') as bigint) as pages
    from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = to_regclass('outbox.attempts') and pg_relation_size(c.oid) > 0),
leaves as (
    select to_date(right(relname, 8), 'YYYYMMDD') as day, pages
    from sizes where relname ~ '^attempts_[0-9]{8}$' order by relname desc limit 3)
select day, pages from leaves
union all
select day, pages from sizes, (select cast(clock_timestamp() at time zone 'UTC' as date) - n as day
                               from generate_series(0, 1) n) recent
where relname = 'attempts_default' and day not in (select day from leaves)
"""
_TAIL = """
select max(at) filter (where verdict not in ('test', 'cancelled')) as last_at,
       max(at) filter (where verdict = 'delivered') as delivered_at
from outbox.attempts
where at >= cast(:day as timestamp) at time zone 'UTC' and at < cast(:next_day as timestamp) at time zone 'UTC'
  and ctid >= cast(:start as tid)
"""
_TAIL_PAGES = 64


def _read_last_attempts(connection: Connection) -> Attempts:
    """Return when the last attempt was and the last delivered one among the newest thousands of the last days."""
    found = [_read_tail(connection, leaf.day, leaf.pages) for leaf in connection.execute(text(_LEAVES)).all()]
    return Attempts(
        last_at=max((row.last_at for row in found if row.last_at), default=None),
        last_delivered_at=max((row.delivered_at for row in found if row.delivered_at), default=None),
    )


def _read_tail(connection: Connection, day: date, pages: int) -> Any:
    start = f"({max(0, pages - _TAIL_PAGES)},0)"
    return connection.execute(text(_TAIL), {"day": day, "next_day": day + timedelta(days=1), "start": start}).one()


# Nobody may read a leaf, but everybody may ask for its size: an empty one has no page.
_DEFAULT_LEAF = """
select case when pg_relation_size(to_regclass(:leaf)) > 0 then greatest(1, reltuples) else 0 end
from pg_catalog.pg_class where oid = to_regclass(:leaf)
"""


def _read_default_leaf(connection: Connection, table: str) -> Count:
    rows = connection.execute(text(_DEFAULT_LEAF), {"leaf": f"outbox.{table}_default"}).scalar_one()
    return Count(int(rows), exact=not rows)
