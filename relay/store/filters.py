"""What filters need, read without any lock: which events come next, and the texts of filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.store.arrays import Uuids
from relay.store.database import PLANS
from relay.store.pending_shares import CHOSEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Database
    from relay.store.pending_shares import Shares

__all__ = ["Ahead", "Look", "PassedOver", "find_ahead", "read_filters"]


class Ahead(NamedTuple):
    """A pending event that the next take will find. type and size (bytes of its payload) are None where it is gone."""

    seq: int
    tenant: str | None
    type: str | None
    size: int | None


class PassedOver(NamedTuple):
    """Filters, by their hashes, that match no event of this kind that the take may find: their rows are left out."""

    tenant: str
    type: str
    hashes: Uuids


class Look(NamedTuple):
    """The events to take, whose filters have been asked.

    last_tenant: as a shared take tells it. more: whether there were others, which were too much for once.
    """

    seqs: Sequence[int]
    last_tenant: str | None = None
    more: bool = False
    passing: PassedOver | None = None


# As the take chooses and reads them, but nothing is locked, so pruning is safe (see SETTINGS).
def _ahead(chosen: str, which: str, last_tenant: str) -> str:
    return f"""
with {chosen}
ahead as materialized (select event_seq from outbox.pending where {which} order by event_seq limit %b)
select a.event_seq, ev.tenant, ev.type, ev.size
from ahead a left join lateral (
    select tenant, type, octet_length(payload) as size
    from outbox.events where seq = a.event_seq and seq > %b and seq <= %b limit 1) ev on true
{last_tenant}"""


_AHEAD_OLDEST = _ahead("", "event_seq > %b and event_seq <= %b", "")
_AHEAD_SHARED = _ahead(
    f"{CHOSEN},",
    "event_seq = any(array(select event_seq from chosen))",
    "union all select null, tenant, null, null from last_tenant",
)


async def find_ahead(
    database: Database, after_seq: int, limit: int, up_to_seq: int, shares: Shares | None = None
) -> tuple[list[Ahead], str | None]:
    """Return the pending events that a take of this kind would find, in order, and its last tenant. Changes nothing."""
    bounds = (after_seq, up_to_seq)
    which = shares.parameters(*bounds, limit) if shares else bounds
    statement = _AHEAD_SHARED if shares else _AHEAD_OLDEST
    (rows,) = await database.transaction((statement, (*which, limit, *bounds)), settings=PLANS)
    last_tenant = next((row[1] for row in rows if row[0] is None), None)
    return sorted(Ahead(*row) for row in rows if row[0] is not None), last_tenant


_FILTERS = "select filter_hash, filter from outbox.subscriptions where id = any(%b) and filter is not null"


async def read_filters(database: Database, ids: Sequence[bytes]) -> dict[bytes, str]:
    """Return the filters that these subscriptions have now, by their hash."""
    return dict(await database.fetch(_FILTERS, Uuids(ids)))
