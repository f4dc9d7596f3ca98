"""The loop that looks for work: poll, fan_out, claim, and a rest when there was nothing.

What it knows between two looks are hints only, and every hint is backed by a slower look that needs none: the due map
(subscriptions with due rows) by the sweep over all subscriptions, the low-water mark by a look without it.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import psycopg

from relay.engine.claim import Claim
from relay.engine.fan_out import FanOut
from relay.engine.low_water import LowWater
from relay.engine.pacing import pause_seconds
from relay.store.store import MAX_SEQ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.engine.outage import Outage
    from relay.engine.outgoing import Outgoing
    from relay.store.rows import Swept
    from relay.store.store import Store

__all__ = ["Feeder"]

POLL_BUSY_SECONDS = 0.1  # between two polls while fan_out says that there is more
DUE_LOOK_BACK_SECONDS = 0.5  # for deliveries whose transaction committed after a later one; the sweep finds the rest
GATHER_SECONDS = 0.002  # between two looks at how much room came free; each asks every subscription that is due
SWEEP_SLICE = 500
SWEEP_EVERY_SECONDS = 1.0


class Feeder:
    """One process's share of finding work."""

    def __init__(
        self, store: Store, outgoing: Outgoing, outage: Outage, *, processes: int, until_drained: bool
    ) -> None:
        self._store = store
        self._outgoing = outgoing
        self._outage = outage
        self._processes = processes
        self._until_drained = until_drained
        self._due: dict[bytes, None] = {}
        self._suspects: dict[bytes, None] = {}
        self._low = LowWater()
        self._fan_out = FanOut(store, outgoing, self._due)
        self._claim = Claim(store, outgoing, self._due, self._suspects)
        self._more_pending = False
        self._next_poll = 0.0
        self._due_since = 0.0
        self._swept_to = bytes(16)
        self._next_sweep = 0.0
        self._worked_at = time.monotonic()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Look for no more work; `run` returns after the round under way."""
        self._stopping.set()
        self._outgoing.room_freed.set()

    async def run(self) -> None:
        """Look for work until stopped, or with `until_drained` until there is none."""
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                worked = await self._round()
                if not worked and self._until_drained and self._outgoing.idle and await self._store.drained():
                    return
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._outage.note(error)
                await self._rest(self._outage.pause_seconds)
                continue
            self._outage.over()
            if worked:
                self._worked_at = time.monotonic()
            else:
                pause = pause_seconds(began - self._worked_at, self._processes, random.random())
                await self._rest(began + pause - time.monotonic())

    async def _round(self) -> bool:
        """Do each kind of looking once; tell whether any found work that could be taken."""
        now = time.monotonic()
        if now >= self._next_sweep:
            await self._sweep()
        low, up_to = self._low.bound(now), MAX_SEQ
        if not self._more_pending or now >= self._next_poll:
            low, up_to = await self._poll(low)
        worked = await self._claim.run()
        if self._more_pending and self._fan_out.is_due(claimable=self._claim.is_possible()):
            first, self._more_pending = await self._fan_out.run(low, up_to)
            if first is not None:
                self._low.took(now, first)
                worked = True
        return await self._claim.run_suspect() or worked

    async def _poll(self, low: int) -> tuple[int, int]:
        """Look; return between which sequence numbers there is something pending."""
        began = time.monotonic()
        look = await self._store.poll(low, self._due_since)
        self._next_poll = began + POLL_BUSY_SECONDS
        self._due_since = look.unix_seconds - DUE_LOOK_BACK_SECONDS
        self._outgoing.set_clock(look.unix_seconds)
        self._due.update(dict.fromkeys(look.due))
        self._more_pending = look.first is not None
        self._low.looked(low, began, time.monotonic(), found=self._more_pending)
        return (low if look.first is None else look.first - 1), look.drawn

    async def _sweep(self) -> None:
        """Look at the next slice of all subscriptions for due rows and suspects that no hint told of."""
        self._outgoing.release_late()
        rows = await self._store.sweep(self._swept_to, SWEEP_SLICE)
        await self._refresh(rows)
        self._due.update(dict.fromkeys(row.id for row in rows if row.due))
        self._due.update(dict.fromkeys(self._outgoing.reopened()))
        self._suspects.update(dict.fromkeys(row.id for row in rows if row.suspects))
        wrapped = len(rows) < SWEEP_SLICE
        self._swept_to = bytes(16) if wrapped else rows[-1].id
        self._next_sweep = time.monotonic() + SWEEP_EVERY_SECONDS

    async def _refresh(self, rows: Sequence[Swept]) -> None:
        """Learn of changes that no claim brings: what was closed and is open again, what waits here and may not go."""
        stale = self._outgoing.outdated((row.id, row.version) for row in rows)
        waiting = self._outgoing.waiting_for()
        if waiting:
            stale += await self._store.changed(waiting)
        if stale:
            self._outgoing.update(await self._store.subscriptions(stale))

    async def _rest(self, seconds: float) -> None:
        """Sleep; room for something that is known to wait, or being stopped, ends it early."""
        if not self._stopping.is_set():
            self._outgoing.room_freed.clear()
        try:
            async with asyncio.timeout(seconds):
                while not (self._stopping.is_set() or await self._room_is_enough()):
                    pass
        except TimeoutError:
            pass

    async def _room_is_enough(self) -> bool:
        """Wait until room comes free; tell whether it is enough to look again."""
        await self._outgoing.room_freed.wait()
        await asyncio.sleep(GATHER_SECONDS)
        self._outgoing.room_freed.clear()
        if self._claim.is_worthwhile():
            return True
        return self._more_pending and self._fan_out.is_due(claimable=self._claim.is_possible())
