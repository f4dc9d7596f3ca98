"""Let time pass in a database at once, for tests: what waits for a time is moved as if it had come nearer.

Everything moves by the same step, so order and distances stay as they are. No relay may run meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.store.database import Database

__all__ = ["find_next_time", "pass_time"]

_OUTSTANDING = "exists (select from outbox.deliveries where subscription_id = {})"
_FUTURE = "{0} > clock_timestamp() and {0} < 'infinity'"
_NEXT = f"""
select extract(epoch from least(
    (select min(due_at) from outbox.deliveries where lease is null and {_FUTURE.format("due_at")}),
    (select min(held_until) from outbox.subscriptions s
     where removed_at is null and {_FUTURE.format("held_until")} and {_OUTSTANDING.format("s.id")}),
    (select min(probe_at) from outbox.health h
     where {_FUTURE.format("probe_at")} and {_OUTSTANDING.format("h.subscription_id")})
) - clock_timestamp())::double precision
"""
_STEP = "make_interval(secs => %b)"
_DELIVERIES = f"""
update outbox.deliveries set due_at = due_at - {_STEP} where lease is null and due_at < 'infinity'
"""
_HOLDS = f"""
update outbox.subscriptions set held_until = held_until - {_STEP} where held_until < 'infinity'
"""
_HEALTH = f"""
update outbox.health h set window_from = window_from - s.step, failing_since = failing_since - s.step,
    warned_at = warned_at - s.step, opened_at = opened_at - s.step, probe_at = probe_at - s.step,
    disabled_at = disabled_at - s.step, late_at = late_at - s.step
from (values ({_STEP})) s(step)
"""
_LIMITS = f"""
update outbox.limits l set allowed_at = allowed_at - s.step, measured_from = measured_from - s.step
from (values ({_STEP})) s(step)
"""


async def find_next_time(database: Database) -> float | None:
    """Return in how many seconds something that waits can be sent; None where nothing does."""
    ((seconds,),) = await database.fetch(_NEXT)
    return None if seconds is None else float(seconds)


async def pass_time(database: Database, seconds: float) -> None:
    """waiting → nearer, by so many seconds; holds, breakers and limits too."""
    await database.transaction(*((one, (seconds,)) for one in (_DELIVERIES, _HOLDS, _HEALTH, _LIMITS)))
