"""Subscriptions: which of them may be sent to now, what sending needs of them, and what a removal leaves to clear."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from outbox.control.store.sendable import BROKEN, MATCHED, NOT_HELD, PROBED, SENDABLE, WANTED
from outbox.secret import Secret
from relay.model.subscription import SUBSCRIPTION_COLUMNS, SubscriptionVersion, TenantLimit
from relay.store.arrays import Bigints, Uuids
from relay.store.limits import FORGOTTEN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.store.database import Database

__all__ = [
    "CLEAR_REMOVED", "MATCHED", "NOT_HELD", "PROBED", "SENDABLE", "SUBSCRIPTIONS", "find_changed", "read_subscriptions",
    "subscription_of",
]  # fmt: skip

_NOTED = """(select case when opened_at is not null then 'open' when failing_since is not null or failures > 0
                    then 'noted' end from outbox.health where subscription_id = s.id)"""
# Before version 17 an infinite time cannot be subtracted. The error would be taken for the fault of an event that the
# subscription matches, so no value of a row may reach an expression that can fail on it.
# An open breaker is asked about again after a while, should nobody tell that it closed. So is who was disabled because
# it only failed and is tried all the same: an endpoint that is not sendable for good keeps no probe that waits for a
# limit.
BROKEN_SECONDS = 60
_TRIED = (
    f"paused_at is null and removed_at is null and sorting_since is null and {NOT_HELD} and recovery_seconds > 0"
    " and exists (select from outbox.health h where h.subscription_id = s.id and h.disabled_at is not null)"
)
_SENDABLE_IN_SECONDS = (
    f"case when s.disabled_at is not null and {_TRIED} then {BROKEN_SECONDS} when not ({WANTED}) then 'infinity'"
    f" when {NOT_HELD} then case when {BROKEN.replace('= id', '= s.id')} then {BROKEN_SECONDS} else 0 end"
    " when isfinite(held_until) then extract(epoch from held_until - clock_timestamp())::double precision"
    " else 'infinity' end"
)

_LIVE = "subscription_id = s.id and (expires_at is null or expires_at > now())"
SUBSCRIPTIONS = f"""
select {", ".join(f"s.{name}" for name in SUBSCRIPTION_COLUMNS)},
       array(select kind from outbox.secrets where {_LIVE} order by created_at desc, id desc),
       array(select secret from outbox.secrets where {_LIVE} order by created_at desc, id desc),
       {_SENDABLE_IN_SECONDS}, {WANTED} and coalesce(held_until = 'infinity', false),
       (select slowed_to from outbox.limits where id = s.id and measured_from > now() - {FORGOTTEN}),
       t.id, t.rate_limit, t.rate_burst, coalesce({_NOTED}, '')
from outbox.subscriptions s
left join lateral (
    select id, rate_limit, rate_burst from outbox.tenant_limits where tenant = s.tenant limit 1) t on true
where s.id = any(%b)
"""


async def read_subscriptions(database: Database, ids: Sequence[bytes]) -> list[SubscriptionVersion]:
    """Read what sending needs of these subscriptions."""
    return [subscription_of(row) for row in await database.fetch(SUBSCRIPTIONS, Uuids(ids))]


_NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


@lru_cache(maxsize=4096)
def _interned(value: str | tuple[int, ...]) -> str | tuple[int, ...]:
    """Return one value for all that are equal: tenants, schedules and the like are the same in thousands of rows."""
    return value


def subscription_of(row: Sequence[Any]) -> SubscriptionVersion:
    """Return a row of SUBSCRIPTIONS as what sending needs; its id is 16 raw bytes."""
    *columns, kinds, texts, sendable_in_seconds, held_for_good, slowed_to, limit, rate, burst, health = row
    values = (_interned(tuple(value)) if isinstance(value, list) else value for value in columns)
    fields: dict[str, Any] = dict(zip(SUBSCRIPTION_COLUMNS, values, strict=True))
    for name in ("tenant", "scheme", "format", "order_policy"):
        fields[name] = _interned(fields[name])
    fields["format_settings"] = fields["format_settings"] or _NO_SETTINGS
    fields["secrets"] = tuple(zip(map(_interned, kinds), map(Secret, texts), strict=True))
    fields |= {"sendable_in_seconds": sendable_in_seconds, "held_for_good": held_for_good, "slowed_to": slowed_to}
    fields |= {"health": health}
    return SubscriptionVersion(**fields, tenant_limit=None if limit is None else TenantLimit(limit, rate, burst))


_CHANGED = f"""
select s.id from unnest(%b, %b) known(id, version)
cross join lateral (select id, version, {SENDABLE} as sendable from outbox.subscriptions where id = known.id limit 1) s
where s.version <> known.version or not s.sendable
"""


async def find_changed(database: Database, known: Sequence[tuple[bytes, int]]) -> list[bytes]:
    """Return which of these (id, version) have another version, or may not be sent to now.

    Never "newer": a standby that is promoted, or a backup, takes versions back.
    """
    ids, versions = zip(*known, strict=True)
    return [row[0] for row in await database.fetch(_CHANGED, Uuids(ids), Bigints(versions))]


CLEAR_REMOVED = """
with gone as (
    delete from outbox.deliveries where id = any(array(
        select d.id from outbox.subscriptions s cross join lateral (
            select id from outbox.deliveries where subscription_id = s.id order by due_at, id
            limit %(batch)s for update skip locked) d
        where s.removed_at is not null limit %(batch)s))
    returning id)
select count(*) from gone
"""
"""due, waiting, leased or suspect → gone: deliveries of removed subscriptions. Run it again until it deletes none."""
