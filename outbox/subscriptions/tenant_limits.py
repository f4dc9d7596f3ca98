"""A tenant's limit: how many requests a second all its subscriptions together get at most, over all relays.

It is kept beside each subscription's own. Subscriptions to every tenant's events have none.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Integer, Text, Uuid, column, delete, select, table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from outbox._connection import require_connection
from outbox.subscriptions.checks import check_tenant
from outbox.subscriptions.rates import check_rate
from outbox.subscriptions.value_checks import whole_number

__all__ = ["TenantLimit", "limit_tenant", "list_tenant_limits"]

_limits = table(
    "tenant_limits",
    column("tenant", Text),
    column("id", Uuid),
    column("rate_limit", Text),
    column("rate_burst", Integer),
    schema="outbox",
)
_check_burst = whole_number(1, 10_000)
_check_limit = whole_number(1, 1000)


@dataclass(frozen=True, kw_only=True)
class TenantLimit:
    """A tenant's limit: its rate as `N/s`, `N/min` or `N/h`, and its burst, None for a tenth of a second's requests."""

    tenant: str
    rate_limit: str
    rate_burst: int | None


def limit_tenant(
    connection: Session | Connection, tenant: str, *, rate_limit: str | None, rate_burst: int | None = None
) -> TenantLimit | None:
    """Set the limit of all of a tenant's subscriptions together, and return it; None takes it away.

    Relays follow within a second or two. The audit notes each change.

    Args:
        connection: a Session or Connection; the caller commits.
        tenant: whose; '' where there are no tenants.
        rate_limit: `N/s`, `N/min` or `N/h`, N from 1 to 99999; None for no limit.
        rate_burst: how many requests may go out at once after a pause, 1 to 10000; None: a tenth of a second's.

    Raises:
        SubscriptionError: an argument was refused; nothing was written.
    """
    name = check_tenant(tenant)
    rate = None if rate_limit is None else check_rate("rate_limit", rate_limit)
    burst = None if rate_burst is None else _check_burst("rate_burst", rate_burst)
    connection = require_connection(connection)
    if rate is None:
        connection.execute(delete(_limits).where(_limits.c.tenant == name))
        return None
    values = {"rate_limit": rate, "rate_burst": burst}
    statement = insert(_limits).values(tenant=name, **values)
    changed = statement.excluded.rate_limit.is_distinct_from(_limits.c.rate_limit) | (
        statement.excluded.rate_burst.is_distinct_from(_limits.c.rate_burst)
    )
    connection.execute(statement.on_conflict_do_update(index_elements=["tenant"], set_=values, where=changed))
    return TenantLimit(tenant=name, rate_limit=rate, rate_burst=burst)


def list_tenant_limits(
    connection: Session | Connection, *, after: str | None = None, limit: int = 100
) -> list[TenantLimit]:
    """Return the limits of tenants by name, at most `limit` (1 to 1000) after the tenant `after`; for the operator.

    Raises:
        SubscriptionError: an argument was refused.
    """
    size = _check_limit("limit", limit)
    statement = select(_limits.c.tenant, _limits.c.rate_limit, _limits.c.rate_burst).order_by(_limits.c.tenant)
    if after is not None:
        statement = statement.where(_limits.c.tenant > check_tenant(after))
    connection = require_connection(connection, to_write=False)
    rows = connection.execute(statement.limit(size))
    return [TenantLimit(tenant=row.tenant, rate_limit=row.rate_limit, rate_burst=row.rate_burst) for row in rows]
