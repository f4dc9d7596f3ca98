"""Was anything lost? Compare how many subscriptions events matched with what there is of their deliveries.

The comparison is the SQL function `outbox.reconciliation`; what it leaves out is said there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from outbox.ids import EventId
from relay.operations.status.unresolved_events import find_unresolved_since

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from relay.operations.status.documents import Unresolved

__all__ = ["IncompleteEvent", "Reconciled", "reconcile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncompleteEvent:
    """An event with fewer subscriptions accounted for than it matched.

    accounted: subscriptions with a delivery, a final attempt or a dead letter. removed: those that match it, are gone
    since, and left nothing. missing: the others.
    """

    id: EventId
    tenant: str
    type: str
    resolved_at: datetime
    matched: int
    accounted: int
    removed: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What was compared: events that were resolved, and subscriptions that these matched.

    `incomplete` is how many events lack something, `missing` how many deliveries they lack; `events` has the oldest.
    `unresolved`: events recorded since then that are neither pending nor resolved, and how many were looked at for it.
    """

    since: datetime
    resolved: int
    matched: int
    incomplete: int
    missing: int
    events: tuple[IncompleteEvent, ...]
    unresolved: Unresolved


# One statement, so one snapshot. An event that was put back is resolved again: its last resolution counts.
_COMPARE = """
with bound as materialized (select {since} as since),
found as materialized (
    select row_number() over () as place, f.* from outbox.reconciliation({since}) f),
resolved as (
    select distinct on (u.seq) u.seq, u.matched from outbox.resolutions r
    cross join lateral unnest(r.seqs, r.matches) u(seq, matched) where r.at >= {since} order by u.seq, r.at desc),
counted as materialized (
    select count(*) as resolved, coalesce(sum(matched), 0) as matched from resolved)
select b.since, c.resolved, c.matched as matched_in_all, f.*,
       count(f.place) over () as incomplete, coalesce(sum(f.missing) over (), 0) as lacking
from bound b cross join counted c left join found f on true order by f.place limit :limit
"""


def reconcile(
    connection: Connection, tenant: str | None, since: datetime | timedelta, *, limit: int = 50
) -> Reconciled:
    """Compare the events that were resolved since then, by the database's clock; return at most `limit` that lack any.

    Look also for events that were recorded since then and never resolved, and name as many.

    Raises NotFoundError when a tenant asks: it is for the operator only.
    """
    operator_only(tenant, "reconciliation")
    ago = isinstance(since, timedelta)
    moment = "(statement_timestamp() - make_interval(secs => :since))" if ago else "cast(:since as timestamptz)"
    value: object = since.total_seconds() if isinstance(since, timedelta) else since
    rows = connection.execute(text(_COMPARE.format(since=moment)), {"since": value, "limit": limit}).all()
    first = rows[0]
    return Reconciled(
        since=first.since,
        resolved=first.resolved,
        matched=int(first.matched_in_all),
        incomplete=first.incomplete,
        missing=int(first.lacking),
        events=tuple(_incomplete(row) for row in rows if row.place is not None),
        unresolved=find_unresolved_since(connection, tenant, first.since, limit),
    )


def _incomplete(row: Any) -> IncompleteEvent:
    return IncompleteEvent(
        id=EventId.of(row.event),
        **{name: getattr(row, name) for name in ("tenant", "type", "resolved_at", "matched", "accounted", "removed")},
        missing=row.missing,
    )
