"""Lanes, in the engine: who is born a head, which lanes are looked at after a commit, and the sweep over all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from relay.store.lanes import FIRST_LANE
from relay.store.sorting import BEGIN, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from relay.store.fan_out import TakenBatch
    from relay.store.lanes import Lane
    from relay.store.sorting import Sorting
    from relay.store.store import Store

__all__ = ["BatchLanes", "LaneSweep", "Looker", "OrderedTake"]

LOOK_AT = 1000  # lanes in one statement
SLICE = 1000  # lanes in one statement of the sweep
ROWS = 500  # in one statement that parks or releases
SECONDS_EACH = 0.1  # of each second, for the sweep, and for what is parked or released
SORT_SECONDS_EACH = 0.15  # nothing is sent to the subscription meanwhile
IDLE_SECONDS = 3.0  # between two sweeps when nothing is parked
BY_NUMBER_SECONDS = 60.0  # so long after the last ordered event, fan_out uses no low-water mark


class Looker:
    """The lanes that one connection's commits left to be looked at; none is forgotten before it was."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lanes: dict[Lane, None] = {}
        self.tell_due: Callable[[Iterable[bytes]], None] = _tell_nobody

    def __len__(self) -> int:
        return len(self._lanes)

    def add(self, lanes: Iterable[Lane]) -> None:
        """Note lanes from which something was deleted, or in which something was parked."""
        self._lanes.update(dict.fromkeys(lanes))

    async def look(self) -> None:
        """Look at every lane that was noted, and tell which subscriptions have something due by that."""
        while self._lanes:
            lanes = list(self._lanes)[:LOOK_AT]
            due = await self._store.look(lanes)
            for lane in lanes:
                self._lanes.pop(lane, None)
            if due:
                self.tell_due(due)


def _tell_nobody(_ids: Iterable[bytes]) -> None:
    """Leave it to the poll to find what became due."""


class Bounds(NamedTuple):
    """Which pending events to take, above `after` up to `up_to`, and above which number to look for their rows.

    complete: no event below is left out.
    """

    after: int
    up_to: int
    events_after: int
    complete: bool

    def of_first(self, seq: int) -> Bounds:
        """Return the bounds of one event, the first of these."""
        return Bounds(seq - 1, seq, seq - 1, self.complete)


class OrderedTake:
    """How fan_out takes events that may be ordered: in the order of their numbers, with no low-water mark.

    A mark is a hint: an event whose transaction committed late may lie below it, and a later one of its key above. So
    a batch with ordered events that was taken above a mark is given up, and taken again without one. Not to open every
    leaf of events then, events are still looked for above the mark, until one is taken that lies below.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._everywhere = False

    def bounds(self, low: int, up_to: int) -> Bounds:
        """Return what to take, where `low` is the mark."""
        if time.monotonic() >= self._until:
            return Bounds(low, up_to, low, complete=low < 0)
        return Bounds(-1, up_to, -1 if self._everywhere else low, complete=True)

    def trusts(self, batch: TakenBatch, take: Bounds) -> bool:
        """Tell whether the batch may be resolved; if not, the next one is taken as it must be."""
        if batch.taken and batch.taken[0].seq <= take.events_after:  # they come in order
            self._everywhere = True
            return False
        self._everywhere = False
        if not _has_ordered(batch):
            return True
        self.note_ordered()
        return take.complete

    def note_ordered(self) -> None:
        """Take by number for a while: there was an event that somebody gets in order."""
        self._until = time.monotonic() + BY_NUMBER_SECONDS


class BatchLanes:
    """The lanes of one fan_out batch. `with_parked`: those in which something is parked behind an older row."""

    def __init__(self, busy: set[Lane]) -> None:
        self._busy = busy
        self._begun: set[Lane] = set()
        self.with_parked: set[Lane] = set()

    @classmethod
    async def of(cls, batch: TakenBatch) -> BatchLanes | None:
        """Return the lanes of a batch; None where nothing in it is ordered, which costs no statement."""
        lanes = {
            (match.subscription_id, taken.lane)
            for taken in batch.taken
            if taken.lane is not None
            for match in batch.matches_of(taken)
            if match.ordered
        } if _has_ordered(batch) else set()  # fmt: skip
        return cls(await batch.find_busy_lanes(list(lanes))) if lanes else None

    def is_parked(self, subscription_id: bytes, lane: int) -> bool:
        """Tell whether the next delivery of this lane is parked. Call it once for each, in the order of events."""
        one = (subscription_id, lane)
        if one in self._busy:
            self.with_parked.add(one)
            return True
        if one in self._begun:
            return True
        self._begun.add(one)
        return False


def _has_ordered(batch: TakenBatch) -> bool:
    return any(match.ordered for matches in batch.matches.values() for match in matches)


class LaneSweep:
    """One engine's sweep over all lanes with parked rows, a slice at a time, and over subscriptions to sort.

    It gives a head to lanes whose relay died before it looked, lets go what a subscription without order has parked,
    and sorts a backlog where order was switched on.
    """

    def __init__(self, store: Store, looker: Looker) -> None:
        self._store = store
        self._looker = looker
        self._place = FIRST_LANE
        self._next = 0.0
        self._met = False  # whether this turn met any lane
        self._passes: dict[Sorting, Pass] = {}

    def look_soon(self) -> None:
        """Sweep at the next run, whether or not anything was parked a moment ago."""
        self._next = 0.0

    async def run(self) -> None:
        """Sweep for a part of a second, unless nothing was parked a moment ago."""
        now = time.monotonic()
        if now < self._next:
            return
        await self._sort()
        while not await self._sweep_slice() and time.monotonic() < now + SECONDS_EACH:
            pass
        if self._place == FIRST_LANE:
            self._next = now + (0.0 if self._met or self._passes else IDLE_SECONDS)
            self._met = False

    async def finds_nothing(self) -> bool:
        """Sweep one whole turn; tell whether every parked row waits behind a head, and nothing is to be sorted."""
        await self._sort()
        self._place, headless = FIRST_LANE, 0
        while True:
            headless += await self._headless()
            if self._place == FIRST_LANE:
                return not headless and not self._passes

    async def _sweep_slice(self) -> bool:
        """Sweep a slice; tell whether it was the last of a turn."""
        await self._headless()
        return self._place == FIRST_LANE

    async def _headless(self) -> int:
        """Mend the next slice; return how many lanes of it had no head, or no order any more."""
        rows = await self._store.sweep_lanes(self._place, SLICE)
        self._met = self._met or bool(rows)
        wrapped = not rows or rows[-1].number < SLICE
        self._place = FIRST_LANE if wrapped else rows[-1].lane
        wrong = [row for row in rows if row.headless or not row.ordered]
        self._looker.add(row.lane for row in wrong if row.ordered)
        await self._looker.look()
        for subscription_id in {row.lane[0] for row in wrong if not row.ordered}:
            await self._release(subscription_id)
        return len(wrong)

    async def _release(self, subscription_id: bytes) -> None:
        until = time.monotonic() + SECONDS_EACH
        while time.monotonic() < until and await self._store.release_parked(subscription_id, ROWS) == ROWS:
            pass

    async def _sort(self) -> None:
        """Go on sorting the backlogs of subscriptions that just became ordered."""
        sortings = await self._store.find_sorting()
        self._passes = {one: self._passes.get(one) or Pass(one) for one in sortings}
        until = time.monotonic() + SORT_SECONDS_EACH
        for sorting, one in list(self._passes.items()):
            if await one.go_on(self._store, until):
                del self._passes[sorting]


class Pass:
    """One pass over a subscription's backlog, and how far it has come."""

    def __init__(self, sorting: Sorting) -> None:
        self._sorting = sorting
        self._place: Place | None = None
        self._again = False

    async def go_on(self, store: Store, until: float) -> bool:
        """Sort until that monotonic time at most; tell whether the subscription is in order and sendable now."""
        try:
            return await self._go_on(store, until)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            return False

    async def _go_on(self, store: Store, until: float) -> bool:
        if self._place is None:
            await store.await_fan_out()
            self._place, self._again = BEGIN, False
        while True:
            batch = await store.sort_batch(self._sorting.subscription_id, self._place, ROWS)
            self._again = self._again or batch.again
            if batch.place is None:
                self._place = None
                return not self._again and await store.end_sorting(self._sorting)
            self._place = batch.place
            if time.monotonic() >= until:
                return False
