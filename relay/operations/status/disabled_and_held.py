"""Subscriptions that nothing is sent to at present: disabled, held back by their receivers' Retry-After, or paused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from outbox.ids import SubscriptionId
from relay.operations.status.documents import DisabledSubscription, HeldSubscription, Newest, PausedSubscription
from relay.operations.status.late_subscriptions import LASTING_HOLD, read_health

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["read_disabled", "read_held", "read_paused"]

_NAMED = 5

_DISABLED = """
select id, shown_url as url, tenant, name, disabled_at, disabled_reason as reason, count(*) over () as number
from outbox.subscriptions s where disabled_at is not null and removed_at is null
order by exists (select from outbox.deliveries where subscription_id = s.id) desc, disabled_at desc limit :named
"""

_HELD = f"""
select id, shown_url as url, tenant, name,
       least(held_until, timestamptz '9999-12-30 00:00:00Z') as held_until, count(*) over () as number
from outbox.subscriptions s
where {LASTING_HOLD} and paused_at is null and disabled_at is null and removed_at is null
order by held_until desc limit :named
"""  # noqa: S608 - the part is a constant

# Only where something waits or is dropped: a person paused it on purpose, and may have forgotten it.
_PAUSED = """
select id, shown_url as url, tenant, name, drops_while_paused as drops, count(*) over () as number, paused_at,
       description
from outbox.subscriptions s
where paused_at is not null and disabled_at is null and removed_at is null
  and (drops_while_paused or exists (select from outbox.deliveries where subscription_id = s.id))
order by paused_at limit :named
"""

_WHO_PAUSED = """
select coalesce(nullif(actor, ''), role) from outbox.audit
where subject = :subject and action = 'paused' order by at desc limit 1
"""
_OLDEST = """
select extract(epoch from clock_timestamp() - due_at) from outbox.deliveries
where subscription_id = :id and due_at <= clock_timestamp() order by due_at limit 1
"""


def read_disabled(connection: Connection, tenant: str | None) -> Newest[DisabledSubscription]:
    """Return how many are disabled, and the five newest, those for which something waits first. Operator only."""
    operator_only(tenant, "status")
    rows = connection.execute(text(_DISABLED), {"named": _NAMED}).all()
    named = tuple(
        DisabledSubscription(**_fields(connection, row), disabled_at=row.disabled_at, reason=row.reason) for row in rows
    )
    return Newest(count=rows[0].number if rows else 0, named=named)


def read_held(connection: Connection, tenant: str | None) -> Newest[HeldSubscription]:
    """Return how many are held back for long, and the five that are longest, with what waits for them.

    For the operator only.
    """
    operator_only(tenant, "status")
    rows = connection.execute(text(_HELD), {"named": _NAMED}).all()
    named = tuple(HeldSubscription(**_fields(connection, row), held_until=row.held_until) for row in rows)
    return Newest(count=rows[0].number if rows else 0, named=named)


def read_paused(connection: Connection, tenant: str | None) -> Newest[PausedSubscription]:
    """Return how many are paused while deliveries wait or are dropped, and the five paused first. Operator only."""
    operator_only(tenant, "status")
    rows = connection.execute(text(_PAUSED), {"named": _NAMED}).all()
    named = tuple(
        PausedSubscription(
            **_fields(connection, row),
            drops=row.drops,
            paused_at=row.paused_at,
            by=connection.execute(text(_WHO_PAUSED), {"subject": str(SubscriptionId.of(row.id))}).scalar() or "",
            description=row.description or "",
            oldest_seconds=_seconds(connection.execute(text(_OLDEST), {"id": row.id}).scalar()),
        )
        for row in rows
    )
    return Newest(count=rows[0].number if rows else 0, named=named)


def _seconds(found: Any) -> float | None:
    return None if found is None else float(found)


def _fields(connection: Connection, row: Any) -> dict[str, Any]:
    return {
        "subscription_id": SubscriptionId.of(row.id),
        "url": row.url,
        "tenant": row.tenant,
        "name": row.name,
        "health": read_health(connection, row.id),
    }
