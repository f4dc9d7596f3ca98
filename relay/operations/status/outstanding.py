"""What is still to be done: events that wait to be resolved, and deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from relay.operations.status.delivery_counts import EXACT_UP_TO, bounded, read_deliveries
from relay.operations.status.documents import Pending

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from relay.operations.status.documents import Deliveries

__all__ = ["read_outstanding", "read_pending"]

_OLDEST = text("""
select extract(epoch from clock_timestamp() - e.recorded_at) from outbox.events e
where e.seq = (select event_seq from outbox.pending order by event_seq limit 1)
""")
_COUNT = text("select count(*) from (select from outbox.pending limit :bound) bounded")


def read_pending(connection: Connection, tenant: str | None) -> Pending:
    """Return how many events wait to be resolved, and for how long. For the operator only."""
    operator_only(tenant, "status")
    age = connection.execute(_OLDEST).scalar_one_or_none()
    return Pending(
        count=bounded(connection.execute(_COUNT, {"bound": EXACT_UP_TO + 1}).scalar_one(), EXACT_UP_TO),
        oldest_seconds=None if age is None else max(0.0, float(age)),
    )


def read_outstanding(connection: Connection, tenant: str | None) -> tuple[Pending, Deliveries]:
    """Return what is pending, and the deliveries by state; for the operator only."""
    return read_pending(connection, tenant), read_deliveries(connection, tenant, None)
