"""From a pending event to its deliveries: fan_out. Where the database refuses them, the event becomes a dead letter.

Ids and times are the bytes that the server sends: the data plane compares and returns them, it never reads them.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg

from outbox.ids import text_id
from relay.store import turns
from relay.store.arrays import Bigints, Integers, Uuids
from relay.store.bodies import BODIES, Bodies, bodies_of, is_unreadable, read_bodies
from relay.store.database import BEGIN, IN_ORDER, PLANS, rollback_if_open
from relay.store.fan_out_births import birth_of
from relay.store.fan_out_matches import MATCHES, MATCHING, MATCHING_PASSING, matches_of_kinds
from relay.store.fan_out_wide import WIDE_FROM, resolve_wide
from relay.store.lanes import LANE_OF_EVENT, find_busy
from relay.store.pending_shares import CHOSEN
from relay.store.rows import Taken
from relay.store.subscriptions import SUBSCRIPTIONS, subscription_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from relay.model.subscription import SubscriptionVersion
    from relay.store.database import Database
    from relay.store.fan_out_wide import WideBirths
    from relay.store.filters import Answers, Look
    from relay.store.lanes import Lane
    from relay.store.pending_shares import Shares
    from relay.store.rows import Birth, Match

__all__ = ["FAN_OUT_SETTINGS", "MAX_SEQ", "TAKE_TURN", "TakenBatch", "fan_out", "new_ids"]

MAX_SEQ = 2**63 - 1  # no event has a higher number

# A relay that waits for its turn goes back to its claims meanwhile.
FAN_OUT_SETTINGS = f"{PLANS}, {IN_ORDER}, set_config('lock_timeout', '250ms', true)"
TAKE_TURN = turns.TAKE.format(turn="fan_out")


# The bounds stand twice, so that the planner leaves out partitions: planning many takes longer than the take itself.
# One answer has the events taken, and beside them what their kinds match (MATCHES). One snapshot reads both, so a
# subscription committed before an event is never missed. No payload is read: its length stands beside the pointer.
_EVENT = f"""tenant, type, available_at, octet_length(payload) as size, {LANE_OF_EVENT} as lane,
               case when starts_with(type, 'relay.') then key end as about"""
_BETWEEN = f"""lateral (
        select {_EVENT} from outbox.events where seq = t.event_seq and seq > %b and seq <= %b limit 1) ev on true"""


def _take(before: str, which: str, events: str = _BETWEEN, matching: str = MATCHING) -> str:
    """pending → taken: return the SQL, with these CTEs before it, for the pending rows that `which` names.

    `events`: what they are joined to, `ev`.
    """
    return f"""
with {before}
taken as materialized (
    select event_seq, priority from outbox.pending where {which} order by event_seq limit %b for update skip locked),
gone as (
    delete from outbox.pending where event_seq = any(array(select event_seq from taken))),
e as materialized (
    select t.event_seq, t.priority, ev.tenant, ev.type, ev.available_at, ev.size, ev.lane, ev.about,
           sum(ev.size) over (order by t.event_seq) as bytes
    from taken t left join {events}),
{matching}
select event_seq, tenant, type, available_at, coalesce(available_at <= clock_timestamp(), true), size,
       coalesce(bytes <= %b, false), priority, lane, about,
       null::uuid[], null::bigint[], null::boolean[], null::boolean[], null::uuid[]
from e
union all {MATCHES}"""


_TAKE_OLDEST = _take("recursive", "event_seq > %b and event_seq <= %b")
_TAKE_BY_SHARES = _take(f"{CHOSEN},", "event_seq = any(array(select event_seq from chosen))") + (
    "union all select null, tenant, null, null, null, null, null, null, null, null, null, null, null, null, null"
    " from last_tenant"
)
# What was chosen before, and nothing else. Its numbers are known when it is planned, which opens their leaves only.
_THESE = (
    f"recursive these as materialized (select seq, {_EVENT} from outbox.events where seq = any(%b)),",
    "event_seq = any(%b)",
    "these ev on ev.seq = t.event_seq",
)
_TAKE_THESE = _take(*_THESE)
_TAKE_THESE_PASSING = _take(*_THESE, MATCHING_PASSING)


@asynccontextmanager
async def fan_out(
    database: Database,
    after_seq: int,
    limit: int,
    byte_budget: int,
    *,
    up_to_seq: int = MAX_SEQ,
    shares: Shares | None = None,
    look: Look | None = None,
    events_after_seq: int | None = None,
    most_matches: int = WIDE_FROM,
) -> AsyncIterator[TakenBatch]:
    """pending → due or leased: take events and yield them with what matches. Call `resolve`, or nothing is kept.

    Raises psycopg.errors.LockNotAvailable when another relay's fan_out has the turn for longer than 250 ms.

    Args:
        database: the data plane's.
        after_seq: the low-water mark; -1 takes from the first event on.
        limit: events at most.
        byte_budget: events whose payloads lie within so many bytes, counted from the first, `fit`.
        up_to_seq: events above are left for the next time.
        shares: how the take is shared out between tenants and priorities; None: the oldest.
        look: what was chosen, and is taken in place of these.
        events_after_seq: where the events are looked for, so that few leaves are opened; None: above `after_seq`. One
            that is taken and lies below comes without its event.
        most_matches: subscriptions of one kind of event that are brought; with more the batch `is_wide`.
    """
    connection = await database.connect()
    try:
        async with connection.pipeline():
            await connection.execute(BEGIN)
            await database.set_up(connection, FAN_OUT_SETTINGS)
            await connection.execute(TAKE_TURN)
        # Not in the pipeline: after one, the server does not start its idle-in-transaction timer.
        bounds = (after_seq, up_to_seq)
        of_events = (after_seq if events_after_seq is None else events_after_seq, up_to_seq)
        if look is None:
            which = shares.parameters(*bounds, limit) if shares else bounds
            statement, asked = _TAKE_BY_SHARES if shares else _TAKE_OLDEST, (*which, limit, *of_events)
        else:
            statement = _TAKE_THESE if look.passing is None else _TAKE_THESE_PASSING
            seqs = Bigints(look.seqs)
            asked = (seqs, seqs, limit, *(look.passing or ()))
        cursor = await connection.execute(statement, (*asked, most_matches + 1, byte_budget), binary=True)
        yield TakenBatch(database, connection, await cursor.fetchall(), look, most_matches)
    finally:
        await rollback_if_open(connection)


_BY_SEQ = attrgetter("seq")


class TakenBatch:
    """One fan_out transaction, open between its take and its `resolve`.

    last_tenant: after which tenant the next take by shares begins; None: anew. matches: by tenant and type. filtered:
    those of these kinds where somebody has a filter; `keep` says which matches of their events are left, and gave_up
    has the pairs whose filter came to no result. is_wide: some events have more matches than were brought.
    """

    def __init__(
        self,
        database: Database,
        connection: psycopg.AsyncConnection[Any],
        rows: list[Any],
        look: Look | None = None,
        most_matches: int = WIDE_FROM,
    ) -> None:
        self._database = database
        self._connection = connection
        self.taken = sorted([Taken._make(row[:10]) for row in rows if row[0] is not None], key=_BY_SEQ)
        others = [row for row in rows if row[0] is None]
        kinds = dict.fromkeys((taken.tenant, taken.type) for taken in self.taken if taken.size is not None)
        passing = None if look is None or look.passing is None else (look.passing.tenant, look.passing.type)
        self.matches = matches_of_kinds(others, kinds, most_matches + 1, passing)
        self.last_tenant: str | None = next((row[1] for row in others if row[2] is None and row[1] is not None), None)
        if look is not None:
            self.last_tenant = look.last_tenant
        asks = any(row[-1] is not None for row in others)  # somebody has a filter
        self.filtered = {
            kind for kind, matches in self.matches.items() if asks and any(match.filter_hash for match in matches)
        }
        self.is_wide = any(len(matches) > most_matches for matches in self.matches.values())
        self.gave_up: list[tuple[int, bytes]] = []
        self._kept: dict[int, Sequence[Match]] = {}
        self._matched: list[tuple[Taken, Sequence[Match]]] | None = None

    def keep(self, event_seq: int, matches: Sequence[Match]) -> None:
        """Set what is left of an event's matches after the filters."""
        self._kept[event_seq] = matches
        self._matched = None

    def matched(self) -> list[tuple[Taken, Sequence[Match]]]:
        """Return each event with its matches, after the filters."""
        if self._matched is None:
            self._matched = [(taken, self.matches_of(taken)) for taken in self.taken]
        return self._matched

    def matches_of(self, taken: Taken) -> Sequence[Match]:
        """Return the matches of an event, after the filters. One about a subscription never goes to that one."""
        kept = self._kept.get(taken.seq) if self._kept else None
        found = self.matches.get((taken.tenant, taken.type), ()) if kept is None else kept
        if taken.about is None:
            return found
        return [match for match in found if text_id("sub", UUID(bytes=match.subscription_id)) != taken.about]

    def all_matches(self) -> Iterator[Sequence[Match]]:
        """Return the matches of the whole batch after the filters, those of plain events once a kind."""
        yield from self._kept.values()
        yield from (matches for kind, matches in self.matches.items() if kind not in self.filtered)

    async def read_subscriptions(self, ids: Sequence[bytes]) -> list[SubscriptionVersion]:
        """Read what sending needs of these subscriptions, inside this transaction."""
        cursor = await self._connection.execute(SUBSCRIPTIONS, (Uuids(ids),), binary=True)
        return [subscription_of(row) for row in await cursor.fetchall()]

    async def find_busy_lanes(self, lanes: Sequence[Lane]) -> set[Lane]:
        """Return those of these lanes that have a delivery already: what is born into them is to be parked."""
        return await find_busy(self._connection, lanes)

    async def resolve(
        self, births: Sequence[Birth], known: Mapping[int, object] | None = None, *, in_lanes: bool = False
    ) -> Bodies:
        """pending → due or leased: insert the deliveries, and how many subscriptions each event matched; commit.

        `in_lanes`: some are in lanes. Return the events of those born leased, but for those `known` already. They are
        asked for behind the commit, in the same round trip: the server gives the lock up however slowly they are read.
        """
        seqs = dict.fromkeys(birth.event_seq for birth in births if birth.lease is not None)
        leased = [seq for seq in seqs if seq not in known] if known else list(seqs)
        connection = self._connection
        birth, columns = birth_of(births, in_lanes=in_lanes)
        columns = (*self._resolution(), *columns)
        committed = read = None
        try:
            async with connection.pipeline():
                await connection.execute(birth, columns, binary=True)
                committed = await connection.execute("commit")
                if leased:  # up to the end of the pipeline they are one transaction, without a begin
                    await self._database.set_up(connection, PLANS)
                    read = await connection.execute(BODIES, (Bigints(leased),), binary=True)
            return bodies_of(await read.fetchall() if read else ())
        except psycopg.Error as error:
            born = committed is not None and committed.statusmessage == "COMMIT"
            if not born or not (is_unreadable(error) or isinstance(error, psycopg.OperationalError)):
                raise
        await rollback_if_open(connection)
        return await read_bodies(self._database, leased)

    async def resolve_wide(self, boost_seconds: int | None, told: Answers, *, may_order: bool) -> WideBirths:
        """pending → due or parked: make all deliveries of the one event that was taken, by the server, and commit."""
        (taken,) = self.taken
        return await resolve_wide(self._connection, taken, boost_seconds, told, may_order=may_order)

    def _resolution(self) -> tuple[object, ...]:
        """Return the columns of the row that says how many subscriptions each event matched."""
        seqs = [taken.seq for taken in self.taken]
        counts = [len(matches) for _, matches in self.matched()]
        return (
            seqs[0],
            Bigints(seqs),
            Integers(counts),
            Bigints([seq for seq, _ in self.gave_up]) if self.gave_up else None,
            Uuids([subscription_id for _, subscription_id in self.gave_up]) if self.gave_up else None,
        )


def new_ids(count: int) -> list[bytes]:
    """Return `count` UUIDv7s as raw bytes, ascending in time, random below the millisecond."""
    head, pack = (time.time_ns() // 1_000_000).to_bytes(6, "big"), _RANDOM.pack
    return [
        head + pack(0x7000 | high & 0x0FFF, 1 << 63 | low & 0x3FFF_FFFF_FFFF_FFFF)
        for high, low in _RANDOM.iter_unpack(os.urandom(_RANDOM.size * count))
    ]


_RANDOM = struct.Struct(">HQ")
