"""What filters need, read without any lock: which events come next, and the texts of filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.store.arrays import Bigints, Uuids
from relay.store.database import IN_ORDER, PLANS, SETTINGS
from relay.store.pending_shares import CHOSEN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from relay.store.database import Database
    from relay.store.pending_shares import Shares

__all__ = ["Ahead", "Answers", "Look", "PassedOver", "choose", "find_ahead", "read_ahead", "read_filters"]


class Ahead(NamedTuple):
    """A pending event that the next take will find. type and size (bytes of its payload) are None where it is gone."""

    seq: int
    tenant: str | None
    type: str | None
    size: int | None


class Answers(NamedTuple):
    """What the filters named so, by their hashes, said of one event; those in neither sequence did not match."""

    names: AbstractSet[bytes] = frozenset()
    matched: Sequence[bytes] = ()
    gave_up: Sequence[bytes] = ()


class PassedOver(NamedTuple):
    """Filters, by their hashes, that match no event of this kind that the take may find: their rows are left out."""

    tenant: str
    type: str
    hashes: Uuids


class Look(NamedTuple):
    """The events to take, chosen before the take: their filters have been asked, or their leaves are to be known.

    last_tenant: as a take by shares tells it. more: whether there were others, which were too much for once.
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
_AHEAD_BY_SHARES = _ahead(
    f"{CHOSEN},",
    "event_seq = any(array(select event_seq from chosen))",
    "union all select null, tenant, null, null from last_tenant",
)


# The same without their events. Where these may lie in any leaf, their numbers have to be known before.
_CHOSEN_OLDEST = (
    "select event_seq, null from outbox.pending where event_seq > %b and event_seq <= %b order by 1 limit %b"
)
_CHOSEN_BY_SHARES = f"""
with {CHOSEN}, first as (select event_seq from chosen order by event_seq limit %b)
select event_seq, null from first union all select null, tenant from last_tenant"""
_KINDS = "select seq, tenant, type, octet_length(payload) from outbox.events where seq = any(%b)"


async def choose(database: Database, after_seq: int, limit: int, up_to_seq: int, shares: Shares | None) -> Look:
    """Return the pending events that a take of this kind would find, and lock no leaf of events. Changes nothing."""
    bounds = (after_seq, up_to_seq)
    which = shares.parameters(*bounds, limit) if shares else bounds
    statement = _CHOSEN_BY_SHARES if shares else _CHOSEN_OLDEST
    rows = await database.fetch(statement, *which, limit, settings=f"{SETTINGS}, {IN_ORDER}")
    last_tenant = next((row[1] for row in rows if row[0] is None), None)
    return Look(sorted(row[0] for row in rows if row[0] is not None), last_tenant)


async def read_ahead(database: Database, seqs: Sequence[int]) -> list[Ahead]:
    """Return what a look ahead tells of these events, in order; those that are gone have no type. Changes nothing."""
    found = {row[0]: Ahead(*row) for row in await database.fetch(_KINDS, Bigints(seqs), settings=PLANS)}
    return [found.get(seq) or Ahead(seq, None, None, None) for seq in seqs]


async def find_ahead(
    database: Database, after_seq: int, limit: int, up_to_seq: int, shares: Shares | None = None
) -> tuple[list[Ahead], str | None]:
    """Return the pending events that a take of this kind would find, in order, and its last tenant. Changes nothing."""
    bounds = (after_seq, up_to_seq)
    which = shares.parameters(*bounds, limit) if shares else bounds
    statement = _AHEAD_BY_SHARES if shares else _AHEAD_OLDEST
    (rows,) = await database.transaction((statement, (*which, limit, *bounds)), settings=f"{PLANS}, {IN_ORDER}")
    last_tenant = next((row[1] for row in rows if row[0] is None), None)
    return sorted(Ahead(*row) for row in rows if row[0] is not None), last_tenant


_FILTERS = "select filter_hash, filter from outbox.subscriptions where id = any(%b) and filter is not null"


async def read_filters(database: Database, ids: Sequence[bytes]) -> dict[bytes, str]:
    """Return the filters that these subscriptions have now, by their hash."""
    return dict(await database.fetch(_FILTERS, Uuids(ids)))
