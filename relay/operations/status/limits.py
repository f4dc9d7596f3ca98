"""Limits: how many there are, and which endpoints are slowed to what their receivers take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from outbox.ids import SubscriptionId
from relay.operations.status.documents import Limits, Newest, SlowedSubscription
from relay.operations.status.late_subscriptions import read_health

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["read_limits"]

_NAMED = 5

_COUNTS = """
select count(*) filter (where rate_limit is not null) as rates,
       count(*) filter (where max_in_flight is not null) as caps,
       (select count(*) from outbox.tenant_limits) as tenants
from outbox.subscriptions where removed_at is null
"""
_SLOWED = """
select s.id, s.shown_url as url, s.tenant, s.name, s.rate_limit, s.max_in_flight, l.slowed_to,
       count(*) over () as number
from outbox.limits l join outbox.subscriptions s on s.id = l.id
where l.slowed_to is not null and l.measured_from > clock_timestamp() - interval '10 minutes' and s.removed_at is null
order by l.slowed_to limit :named
"""


def read_limits(connection: Connection, tenant: str | None) -> Limits:
    """Return how many limits there are, and the five endpoints that are slowed most. For the operator only."""
    operator_only(tenant, "status")
    rows = connection.execute(text(_SLOWED), {"named": _NAMED}).all()
    named = tuple(
        SlowedSubscription(
            subscription_id=SubscriptionId.of(row.id),
            url=row.url,
            tenant=row.tenant,
            name=row.name,
            health=read_health(connection, row.id),
            slowed_to=round(row.slowed_to, 3),
            rate_limit=row.rate_limit,
            max_in_flight=row.max_in_flight,
        )
        for row in rows
    )
    slowed = Newest(count=rows[0].number if rows else 0, named=named)
    return Limits(**connection.execute(text(_COUNTS)).mappings().one(), slowed=slowed)
