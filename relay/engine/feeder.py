"""Look for work in a loop: poll, sweep, claim, fan_out, and a rest when there was nothing.

What the loop remembers is hints only, and something slower finds what a hint misses: the sweep over all subscriptions
backs the due map (subscriptions with due rows), and a poll without the low-water mark backs the mark.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from enum import Flag, auto
from typing import TYPE_CHECKING

import psycopg

from relay.engine.batches import Batches
from relay.engine.breaker_watch import Breakers
from relay.engine.bulk import BulkOperations
from relay.engine.claim import Claim
from relay.engine.due_map import DueMap
from relay.engine.fan_out import FanOut
from relay.engine.lanes import LaneSweep
from relay.engine.limiter import Limiter
from relay.engine.low_water import LowWater
from relay.engine.poll_interval import QUIET_AT_START_SECONDS
from relay.engine.poll_turn import PollTurn
from relay.engine.sending_switch import Halt
from relay.engine.side_tasks import BATCHES, LIMITS, SideTasks
from relay.engine.suspects import SuspectClaim
from relay.engine.sweep import Sweep
from relay.store.fan_out import MAX_SEQ

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.engine.clock import DatabaseClock
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.lone_suspect import LoneSuspect
    from relay.engine.meter import Meter
    from relay.engine.outage import LoopOutage
    from relay.engine.pace import Pace
    from relay.engine.room import Room
    from relay.engine.sending import Sending
    from relay.store.store import Store

__all__ = ["Feeder", "Part"]

log = logging.getLogger("relay.engine")

POLL_BUSY_SECONDS = 0.1  # between two polls while fan_out says that there is more
DUE_LOOK_BACK_SECONDS = 0.5  # for deliveries whose transaction committed after a later one; the sweep finds the rest
GATHER_SECONDS = 0.002  # lets more room come free; each check of the room goes through the whole due map
SWEEP_EVERY_SECONDS = 1.0
SWEPT_AHEAD = 2000  # where so many are known to have something due, the sweep need not bring more at once
HEED_SECONDS = 0.5  # at most, between two looks at the switch of all sending by whoever has something to begin


class Part(Flag):
    """The parts of a step that have times of their own. Every step also claims."""

    SWEEP = auto()
    POLL = auto()
    FAN_OUT = auto()
    """fan_out, even while older work keeps this process busy."""
    EVERY = SWEEP | POLL | FAN_OUT


class Feeder:
    """Finds work for one engine. `steps` counts the steps that ended without an error."""

    def __init__(
        self,
        store: Store,
        endpoints: Endpoints,
        room: Room,
        sending: Sending,
        lone: LoneSuspect,
        clock: DatabaseClock,
        outage: LoopOutage,
        pace: Pace,
        *,
        processes: int,
        idle_poll_seconds: float,
        priority_step_seconds: int,
        until_drained: bool,
        meter: Meter,
    ) -> None:
        self._store = store
        self._endpoints = endpoints
        self._sending = sending
        self._clock = clock
        self._outage = outage
        self._pace = pace
        self._room = room
        self._freed = room.watch()
        self.due = DueMap(endpoints.tenant_of)
        self.limiter = Limiter(store, endpoints, self.due)
        self.claim = Claim(store, endpoints, room, sending, self.due, pace)
        self.batches = Batches(store, endpoints, room, sending, self.due, pace)
        self.suspect_claim = SuspectClaim(store, endpoints, sending, lone, pace)
        self.fan_out = FanOut(
            store, endpoints, room, sending, self.due, self.batches, pace, self.claim.marks,
            priority_step_seconds=priority_step_seconds, meter=meter,
        )  # fmt: skip
        self.sweep = Sweep(store, endpoints, sending, self.due, self.suspect_claim.subscriptions)
        self.lanes = LaneSweep(store, self.fan_out.looker)
        self.fan_out.looker.tell_due = self.note_due
        self.bulk = BulkOperations(store, self.fan_out.looker, self.note_due)
        self.breakers = Breakers(store, endpoints, room, sending, lone, pace)
        self.low_water, self._side = LowWater(), SideTasks()
        self._turn = PollTurn(store, processes=processes, slow_seconds=idle_poll_seconds)
        self._until_drained, self._more_pending = until_drained, False
        self.halt, self._low = Halt(), -1  # as of the last poll: the switch, and below what nothing was pending
        self._next_poll = self._next_sweep = self._due_since = 0.0
        self._worked_at = time.monotonic() - QUIET_AT_START_SECONDS
        self._origin: tuple[object, ...] = ()
        self._stopping = asyncio.Event()
        self.steps = 0

    def stop(self) -> None:
        """Look for no more work; `run` returns after the step under way."""
        self._stopping.set()
        self._freed.set()

    async def until_stopping(self) -> None:
        """Wait until it was told to stop."""
        await self._stopping.wait()

    def note_due(self, subscription_ids: Iterable[bytes]) -> None:
        """Note subscriptions for which something became due, and look again soon."""
        self.due.add_all(subscription_ids)
        self._freed.set()

    def close(self) -> None:
        """Leave the room, which other engines may go on to share."""
        self._room.stop_watching(self._freed)

    async def run(self) -> None:
        """Look for work until stopped, or with `until_drained` until there is none."""
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                worked = not await self._stands_by(began) and await self.step(self._due_parts(began))
                if not worked and self._until_drained and await self._is_drained():
                    return
                if not worked:
                    await self._side.run("the turn to poll", self._turn.look)
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._outage.note_failure(error)
                await self._store.recover(error)
                self._next_poll = 0.0  # the next step asks the database for certain
                await self._rest(self._outage.pause_seconds)
                continue
            self._outage.note_success()
            if worked:
                self._worked_at = time.monotonic()
            else:
                await self._rest(self._rest_until(began) - time.monotonic())

    async def step(self, parts: Part = Part.EVERY) -> bool:
        """Look for work once, by these parts and by claims; tell whether any work was taken.

        The order matters: sweep and poll fill the due map for the claim, and fan_out comes after the claim, because
        what is due has to be leased before newer events.
        """
        now = time.monotonic()
        await self._store.connect()
        if Part.SWEEP in parts:
            await self._sweep()
        if self._store.origin != self._origin:  # known since the connection, or since this sweep
            await self.halt.note_place(self._store)
            self._begin_anew()
            parts |= Part.POLL
        up_to = MAX_SEQ
        if Part.POLL in parts:
            up_to = await self._poll(self.low_water.bound(now))
        if Part.SWEEP in parts and not self.halt.is_on:  # known since the poll, of whatever database this is
            await self._side.run("bulk operations", self.bulk.run)
        worked = not self.halt.is_on and await self._claim()
        if self._more_pending and (Part.FAN_OUT in parts or self._fan_out_is_due()):
            with self._pace.timing("fan_out"):
                first, self._more_pending = await self.fan_out.run(self._low, up_to, may_lease=not self.halt.is_on)
            if first is not None:
                self.low_water.note_taken()
            worked = worked or first is not None
        if not self.halt.is_on:
            worked = await self._side.run("the claim of suspects", self.suspect_claim.run) or worked
            worked = await self._side.run("the look at breakers", self.breakers.run) or worked
        self.steps += 1
        return worked

    async def _stands_by(self, now: float) -> bool:
        """Poll only, where nothing is held here and another has the turn, and sweeps; tell whether that was enough."""
        held = not self._sending.idle or self.batches.gathers_any
        if self._until_drained or held or not self._turn.stands_by(now - self._worked_at):
            return False
        await self._store.connect()
        if self._origin != self._store.origin:
            return False
        await self._poll(self.low_water.bound(now))
        await self._side.run(LIMITS, self.limiter.run)  # gives back what was not used
        if self._more_pending or self.suspect_claim.subscriptions or (self.due and not self.halt.is_on):
            return False
        self.steps += 1
        return True

    async def _sweep(self) -> None:
        with self._pace.timing("sweep"):
            await self._side.run("the sweep", self.sweep.run)
            await self._side.run("the sweep over lanes", self.lanes.run)
        hungry = self.sweep.found_many and len(self.due) < SWEPT_AHEAD
        self._next_sweep = time.monotonic() + (0.0 if hungry else SWEEP_EVERY_SECONDS)

    async def _claim(self) -> bool:
        """Take what limits allow, then claim: a limit is known before a row is leased."""
        await self._side.run(LIMITS, self.limiter.run)
        return await self._side.run(BATCHES, self.batches.run) | await self.claim.run()

    def _rest_until(self, began: float) -> float:
        """Return when to look again; while all sending is paused, no limit matters."""
        until = began + self._pause_seconds(began)
        limits, batches = (self.limiter.rest_until, LIMITS), (self.batches.rest_until, BATCHES)
        ends = [max(end, self._side.rests_until(name)) for end, name in (limits, batches)]
        return until if self.halt.is_on else min(until, *ends)

    async def _is_drained(self) -> bool:
        if not self._sending.done or not await self._store.is_drained():
            return False
        waits = self.halt.is_on or await self.bulk.finds_nothing()  # paused, or in a copy: it does not count
        return waits and await self.lanes.finds_nothing()

    def _begin_anew(self) -> None:
        """Forget what was learnt from another server or timeline, and give back what has not begun.

        What is under way may go on: its result is settled by ids that were never given twice.
        """
        if self._origin:
            log.warning("database: another server or timeline, or another schema; everything known is read again")
            self._sending.release_unbegun()
            self._endpoints.distrust()
            for known in (self.due, self.suspect_claim.subscriptions, self.batches, self.claim.marks):
                known.clear()
            self.fan_out.filters.forget()
            self.sweep.restart()
            self.breakers.restart()
            self.low_water, self._due_since, self._next_sweep, self._more_pending = LowWater(), 0.0, 0.0, False
        self._origin = self._store.origin

    def _due_parts(self, now: float) -> Part:
        sweep = Part.SWEEP if now >= self._next_sweep else Part(0)
        return sweep | (Part.POLL if not self._more_pending or now >= self._next_poll else Part(0))

    async def _poll(self, low: int) -> int:
        """Poll for pending events above `low` and for due rows; return the last number that any event had."""
        began = time.monotonic()
        with self._pace.timing("poll"):
            ask_groups = not self.fan_out.shares.grouped
            seen = await self._store.poll(low, self._due_since, ask_groups=ask_groups)
        self._next_poll = began + POLL_BUSY_SECONDS
        self._due_since, self.fan_out.drawn = seen.unix_seconds - DUE_LOOK_BACK_SECONDS, seen.drawn
        self._clock.set(seen.unix_seconds)
        self.halt.heed(seen, self._sending)
        if seen.groups:
            self.fan_out.shares.note_groups()
        self.due.add_all(seen.due)
        self._more_pending = seen.first is not None
        self._low = self.low_water.note_look(low, began, time.monotonic(), seen.first, seen.drawn)
        return seen.drawn

    def _pause_seconds(self, began: float) -> float:
        """Return the rest after a look that found nothing; a short one, where the switch matters to what is here."""
        pause = self._turn.pause_seconds(began - self._worked_at, random.random())
        return min(pause, HEED_SECONDS) if self.halt.is_on or self._sending.has_unbegun else pause

    def _fan_out_is_due(self) -> bool:
        return self.fan_out.is_due(claimable=not self.halt.is_on and self.claim.is_possible())

    async def _rest(self, seconds: float) -> None:
        """Sleep, but end early when there is room for work that is known to wait, or when stopped."""
        if not self._stopping.is_set():
            self._freed.clear()
        try:
            async with asyncio.timeout(seconds):
                while not (self._stopping.is_set() or await self._room_is_enough()):
                    pass
        except TimeoutError:
            pass

    async def _room_is_enough(self) -> bool:
        """Wait until room comes free; tell whether it is enough to look again."""
        await self._freed.wait()
        await asyncio.sleep(GATHER_SECONDS)
        self._freed.clear()
        if not self.halt.is_on and (
            self.claim.is_worthwhile() or self.suspect_claim.is_possible() or self.batches.is_possible()
        ):
            return True
        return self._more_pending and self._fan_out_is_due()
