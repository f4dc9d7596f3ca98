"""Subscriptions that nothing is sent to at present: disabled, or held back by their receivers' Retry-After.

A person paused what is paused, on purpose: it is counted with them, and not named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.ids import SubscriptionId
from relay.operations.status.documents import DisabledSubscription, HeldSubscription, Newest
from relay.operations.status.late_subscriptions import read_health
from relay.operations.tenancy import operator_only
from relay.store.subscriptions import OPEN

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["count_due_of_closed", "read_disabled", "read_held"]

_NAMED = 5
_COUNTED = 100

_DISABLED = """
select id, url, tenant, disabled_at, disabled_reason as reason, count(*) over () as number
from outbox.subscriptions where disabled_at is not null and removed_at is null
order by disabled_at desc limit :named
"""

_HELD = """
select id, url, tenant, least(held_until, timestamptz '9999-12-30 00:00:00Z') as held_until, count(*) over () as number
from outbox.subscriptions
where held_until > clock_timestamp() and paused_at is null and disabled_at is null and removed_at is null
order by held_until desc limit :named
"""

_DUE = f"""
select coalesce(sum(due), 0) as due, count(*) as subscriptions from (
    select (select count(*) from (select 1 from outbox.deliveries d
                                  where d.subscription_id = s.id and d.due_at <= clock_timestamp()
                                  limit :bound) bounded) as due
    from outbox.subscriptions s where removed_at is null and not ({OPEN}) limit :counted) closed
"""  # noqa: S608 - the parts are constants


def read_disabled(connection: Connection, tenant: str | None) -> Newest[DisabledSubscription]:
    """Return how many are disabled, and the five newest of them with what waits for them. For the operator only."""
    operator_only(tenant, "status")
    rows = connection.execute(text(_DISABLED), {"named": _NAMED}).all()
    named = tuple(
        DisabledSubscription(**_fields(connection, row), disabled_at=row.disabled_at, reason=row.reason) for row in rows
    )
    return Newest(count=rows[0].number if rows else 0, named=named)


def read_held(connection: Connection, tenant: str | None) -> Newest[HeldSubscription]:
    """Return how many are held back, and the five that are longest, with what waits for them. For the operator only."""
    operator_only(tenant, "status")
    rows = connection.execute(text(_HELD), {"named": _NAMED}).all()
    named = tuple(HeldSubscription(**_fields(connection, row), held_until=row.held_until) for row in rows)
    return Newest(count=rows[0].number if rows else 0, named=named)


def _fields(connection: Connection, row: Any) -> dict[str, Any]:
    return {
        "subscription_id": SubscriptionId.of(row.id),
        "url": row.url,
        "tenant": row.tenant,
        "health": read_health(connection, row.id),
    }


def count_due_of_closed(connection: Connection, tenant: str | None, bound: int) -> tuple[int, bool]:
    """Return how many deliveries are due to subscriptions that nothing is sent to, and whether that is all of them.

    Up to `bound` are counted of each, and a hundred subscriptions. For the operator only.
    """
    operator_only(tenant, "status")
    row = connection.execute(text(_DUE), {"bound": bound, "counted": _COUNTED}).one()
    return int(row.due), row.due < bound and row.subscriptions < _COUNTED
