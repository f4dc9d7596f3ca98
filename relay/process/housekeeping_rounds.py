"""The rounds of housekeeping, each a statement: make leaves (partitions) ahead, clear what expired, apply retention.

One also counts attempts into roll-ups (0021_statistics.sql says how each is counted once). housekeeping.py does them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.store.breaker import FORGET_WELL, MARK_LATE
from relay.store.limits import CLEAR_LIMITS
from relay.store.retention import RETENTION
from relay.store.subscriptions import CLEAR_REMOVED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.config.options import Config
    from relay.store.retention import RetentionStep

__all__ = ["Round", "rounds_of"]

BATCH_ROWS = 2_000
# To make a leaf, the default leaf is read while inserts into it wait. A running relay therefore makes none while the
# default leaf is large; `relay migrate` does.
MAX_DEFAULT_BYTES = 256 * 1024 * 1024
LEAVES_OF_EVENTS = 40  # a leaf of events is filled in a fortieth of the retention time, or in half of that

_MAKE_EVENT_LEAF = f"""
select outbox.make_event_leaf(max_default_bytes => %(max_default_bytes)s,
                              span => make_interval(days => %(events_days)s) / {LEAVES_OF_EVENTS})"""

# A row that an application's transaction holds is passed over, and so are the rows that would wait for it.
_DELETE_REMOVED = """
with gone as (
    delete from outbox.subscriptions where id = any(array(
        select id from outbox.subscriptions s where removed_at < clock_timestamp() - interval '1 hour'
            and not exists (select from outbox.deliveries where subscription_id = s.id)
        limit %(batch)s for update skip locked))
    returning id)
select count(*) from gone"""
_CANCEL_ORPHANS = "select outbox.cancel_orphans(%(batch)s)"
_DELETE_EXPIRED = """
with gone as (
    delete from outbox.secrets where id = any(array(
        select id from outbox.secrets where expires_at <= clock_timestamp() limit %(batch)s for update skip locked))
    returning id)
select count(*) from gone"""
_DELETE_TESTS = """
with gone as (
    delete from outbox.test_requests where id = any(array(
        select id from outbox.test_requests where requested_at < clock_timestamp() - interval '1 day'
        limit %(batch)s for update skip locked))
    returning id)
select count(*) from gone"""


@dataclass(frozen=True)
class Round:
    """A statement to repeat until its first column is null, false or zero: nothing is left then.

    Its parameter `after` is what it answered the last time, 0 at first. After `seconds` it goes on the next time.
    """

    name: str
    every_seconds: float
    statement: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    seconds: float = float("inf")


def rounds_of(config: Config) -> list[Round]:
    """Return every round but sealing, in the order in which they are done.

    The row of a removed subscription stays an hour longer than its deliveries: a fan_out that began before the removal
    may still add some.
    """
    leaves = {"max_default_bytes": MAX_DEFAULT_BYTES, "events_days": config.events_retention_days}
    statistics = {"days": config.statistics_retention_days, "batch": BATCH_ROWS}
    return [
        Round("attempt leaves", 60, "select outbox.make_attempt_leaf()"),
        Round("idempotency key leaves", 60, "select outbox.make_key_leaf()"),
        Round("inbox leaves", 60, "select outbox.make_inbox_leaf()"),
        Round("event leaves", 60, _MAKE_EVENT_LEAF, leaves),
        Round("deliveries of removed subscriptions", 5, CLEAR_REMOVED, {"batch": BATCH_ROWS}),
        Round("removed subscriptions", 60, _DELETE_REMOVED, {"batch": BATCH_ROWS}),
        Round("deliveries without a subscription", 60, _CANCEL_ORPHANS, {"batch": BATCH_ROWS}),
        Round("limits of what is gone", 3600, CLEAR_LIMITS, {"batch": BATCH_ROWS}),
        Round("secrets that ran out", 60, _DELETE_EXPIRED, {"batch": BATCH_ROWS}),
        Round("old test messages", 3600, _DELETE_TESTS, {"batch": BATCH_ROWS}),
        Round("late backlogs", 30, MARK_LATE, {"batch": BATCH_ROWS}),
        Round("endpoints that are well", 60, FORGET_WELL, {"batch": BATCH_ROWS}),
        *(_retention(step, getattr(config, f"{step.kind}_retention_days")) for step in RETENTION),
        Round("statistics", 5, "select outbox.roll_up(100, 100)"),
        Round("statistics of former attempts", 60, "select outbox.note_old_attempts()"),
        Round("old statistics", 300, "select outbox.prune_rollups(%(days)s, %(batch)s)", statistics),
        Round("old events of tenants", 60, "select outbox.prune_tenant_events(%(batch)s)", {"batch": BATCH_ROWS}),
        Round("what is old of tenants", 60, "select outbox.prune_tenant(%(batch)s)", {"batch": BATCH_ROWS}),
        Round("erasures", 5, "select outbox.erase_next(%(batch)s)", {"batch": BATCH_ROWS}, seconds=5.0),
        Round("old idempotency keys", 3600, "select outbox.forget_keys(%(batch)s)", {"batch": BATCH_ROWS}),
        Round("old received requests", 3600, "select outbox.prune_inbox(%(batch)s)", {"batch": BATCH_ROWS}),
        Round("empty leaves", 60, "select outbox.drop_empty_leaf()"),
    ]


def _retention(step: RetentionStep, days: int) -> Round:
    """Return a step of retention as a round.

    Whole leaves go as soon as they are old, single rows only if their leaf stayed longer than it takes to fill it.
    """
    grace = {"events": 1 + days // LEAVES_OF_EVENTS, "attempts": 1}.get(step.kind, 0) if step.unit == "rows" else 0
    return Round(step.name, 3600, step.statement, {"days": days + grace, "batch": BATCH_ROWS})
