"""Ids that several of the newest events have: whoever inserts an event may name its id, and no unique index holds it.

Receivers that drop a known `webhook-id` see only one of such events. The ids of idempotency keys (UUIDs of version 8)
are left out: they come again, as documented, once the database has forgotten the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.findings import Finding
from outbox.control.tenancy import operator_only
from outbox.ids import EventId
from relay.operations.status.unresolved_events import DRAWN, last_numbers

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["find_repeated_ids"]

_NEWEST = 10_000
_REPEATED = text("""
with newest as materialized (
    select id from outbox.events where seq > :above and seq <= :drawn order by seq desc limit :newest),
repeated as (
    select id, count(*) as events from newest group by id having count(*) > 1 and substr(id::text, 15, 1) <> '8')
select id, events, count(*) over () as ids from repeated order by events desc, id limit 1
""")


def find_repeated_ids(connection: Connection, tenant: str | None) -> tuple[Finding, ...]:
    """Return a finding where some of the newest 10,000 events share an id. Operator only."""
    operator_only(tenant, "status")
    drawn: int = connection.execute(DRAWN).scalar_one()
    row = connection.execute(_REPEATED, {"newest": _NEWEST, **last_numbers(drawn)}).one_or_none()
    if row is None:
        return ()
    worst = f"{EventId.of(row.id)}, which {row.events:,} have"
    seen = (
        f"of the last {_NEWEST:,} events, several have one id: {worst}"
        if row.ids == 1
        else f"of the last {_NEWEST:,} events, several share each of {row.ids:,} ids, most of all {worst}"
    )
    mend = "leave id to its default where events are inserted; to record one only once, use idempotency_key"
    return (Finding(code="events.repeated_id", subject="events", seen=seen, mend=mend),)
