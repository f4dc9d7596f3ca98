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

__all__ = ["oldest_pending_seconds", "read_outstanding", "read_pending"]

_OLDEST = text("select event_seq from outbox.pending order by event_seq limit 1")
# With the number known when it is planned, it opens the leaf of this event only.
_AGE = text("""
select cast(extract(epoch from clock_timestamp() - recorded_at) as double precision) from outbox.events
where seq = any(cast(:seqs as bigint[]))
""")
_COUNT = text("select count(*) from (select from outbox.pending limit :bound) bounded")


def oldest_pending_seconds(connection: Connection) -> float | None:
    """Return for how long the first pending event waits to be resolved; None where none does."""
    seqs = list(connection.execute(_OLDEST).scalars())
    age = connection.execute(_AGE, {"seqs": seqs}).scalar_one_or_none() if seqs else None
    return None if age is None else max(0.0, age)


def read_pending(connection: Connection, tenant: str | None) -> Pending:
    """Return how many events wait to be resolved, and for how long. For the operator only."""
    operator_only(tenant, "status")
    return Pending(
        count=bounded(connection.execute(_COUNT, {"bound": EXACT_UP_TO + 1}).scalar_one(), EXACT_UP_TO),
        oldest_seconds=oldest_pending_seconds(connection),
    )


def read_outstanding(connection: Connection, tenant: str | None) -> tuple[Pending, Deliveries]:
    """Return what is pending, and the deliveries by state; for the operator only."""
    return read_pending(connection, tenant), read_deliveries(connection, tenant, None)
