"""Order switched on for a subscription that has a backlog: what lies there is put into lanes, a batch at a time.

From the switch on, nothing is sent to the subscription (it is not SENDABLE) and fan_out parks what it makes for it.
One pass over its rows then parks each whose event has a key. It begins when every fan_out that began before the switch
has ended, and ends when it met no row that was leased or changed meanwhile. Then it is sendable again, and the sweep
gives every lane its head, the first of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from relay.store.arrays import Bigints, Timestamps, Uuids
from relay.store.database import PLANS
from relay.store.fan_out import FAN_OUT_SETTINGS, TAKE_TURN
from relay.store.lanes import LANE_OF_EVENT

if TYPE_CHECKING:
    from relay.store.database import Database

__all__ = ["BEGIN", "Place", "Sorted", "Sorting", "await_fan_out", "end_sorting", "find_sorting", "sort_batch"]

# A claim that began before the switch has ended a second after it: it is one statement, which waits for nobody.
GRACE_SECONDS = 1.0


class Sorting(NamedTuple):
    """A subscription whose backlog is being sorted, and since when (8 bytes, as the server sent them)."""

    subscription_id: bytes
    since: bytes


class Place(NamedTuple):
    """How far a pass has come: the due_at (8 bytes) and the id of the last row."""

    due_at: bytes
    id: bytes


BEGIN = Place((-(2**63)).to_bytes(8, "big", signed=True), bytes(16))  # -infinity


class Sorted(NamedTuple):
    """A batch of a pass: where it ended (None: there was nothing more), and whether another pass has to come by."""

    place: Place | None
    again: bool


_FIND = f"""
select id, sorting_since from outbox.subscriptions
where sorting_since < clock_timestamp() - interval '{GRACE_SECONDS} s' and removed_at is null
order by sorting_since limit 10"""


async def find_sorting(database: Database) -> list[Sorting]:
    """Return subscriptions whose backlog is to be sorted, ten at most."""
    return [Sorting(*row) for row in await database.fetch(_FIND)]


async def await_fan_out(database: Database) -> None:
    """Wait until every fan_out that runs now has ended; raises LockNotAvailable after 250 ms."""
    await database.transaction((TAKE_TURN, ()), settings=FAN_OUT_SETTINGS)


_READ = """
select id, event_seq, due_at, lease is not null and due_at > clock_timestamp() from outbox.deliveries
where subscription_id = %b and due_at < 'infinity' and (due_at, id) > ((%b)[1], %b) order by due_at, id limit %b"""
# The numbers are known when it is planned: it opens the leaves that hold one.
_KEYED = f"select seq, {LANE_OF_EVENT} from outbox.events where seq = any(%b) and key is not null"
_PARK = """
update outbox.deliveries d set lane = r.lane, due_at = 'infinity', lease = null,
       not_before = case when d.due_at > clock_timestamp() then d.due_at end
from unnest(%b, %b, %b) r(id, due_at, lane) where d.id = r.id and d.due_at = r.due_at
returning d.id"""
"""due, waiting or suspect → parked."""


async def sort_batch(database: Database, subscription_id: bytes, after: Place, limit: int) -> Sorted:
    """due, waiting or suspect → parked: the next rows of a pass, in the order of their due_at: no row moves back.

    What is leased is left alone, and what changed since it was read.
    """
    place = (Timestamps([after.due_at]), UUID(bytes=after.id))
    rows = await database.fetch(_READ, UUID(bytes=subscription_id), *place, limit)
    if not rows:
        return Sorted(None, again=False)
    seqs = sorted({seq for _, seq, _, _ in rows})
    (lanes,) = await database.transaction((_KEYED, (Bigints(seqs),)), settings=PLANS)
    lane_of = dict(lanes)
    keyed = [(row[0], row[2], lane_of[row[1]]) for row in rows if row[1] in lane_of and not row[3]]
    parked = 0
    if keyed:
        ids, times, hashes = zip(*keyed, strict=True)
        parked = len(await database.fetch(_PARK, Uuids(ids), Timestamps(times), Bigints(hashes)))
    again = parked < len(keyed) or any(leased for *_, leased in rows)
    return Sorted(Place(rows[-1][2], rows[-1][0]), again)


# Not while a lane has a head: it might have been promoted when the pass had come by.
_END = """
update outbox.subscriptions s set sorting_since = null
where s.id = %b and s.sorting_since = (%b)[1]
  and (select true from outbox.deliveries d
       where d.subscription_id = s.id and d.lane is not null and isfinite(d.due_at) limit 1) is null
returning s.id"""


async def end_sorting(database: Database, sorting: Sorting) -> bool:
    """Make it sendable after a pass that met nothing it had to leave; False if another one has to come by."""
    return bool(await database.fetch(_END, UUID(bytes=sorting.subscription_id), Timestamps([sorting.since])))
