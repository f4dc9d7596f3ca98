"""Settle and release in batches. Results stay in memory until the database has taken them, however long it is away.

An application's transaction may hold the row of a leased delivery for as long as it likes: `deliveries.cancel()` does
until its caller commits. No statement here waits for such a row longer than a moment; its result is set aside.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg

from outbox.ids import text_id
from relay.engine.dead_letter_log import DeadLetterLog
from relay.engine.lanes import Looker
from relay.engine.set_aside import SetAside
from relay.model.verdict import VerdictKind
from relay.store.postgres_errors import is_locked, is_refusal, one_line
from relay.store.rows import Settled

if TYPE_CHECKING:
    from relay.engine.clock import DatabaseClock
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.meter import Meter
    from relay.engine.outage import LoopOutage
    from relay.engine.pace import Pace
    from relay.model.delivery import Delivery
    from relay.model.settlement import Settlement
    from relay.store.store import Store

__all__ = ["Settler"]

log = logging.getLogger("relay.engine")

BATCH = 500
LINGER_QUIET_SECONDS = 0.005
LINGER_BUSY_SECONDS = 0.040
BUSY_FROM = 16  # results in the last batch; from this number on, waiting longer saves statements
PATIENCE_SECONDS = 1.0  # for looking, by halves, which results of a batch wait for a lock; then they are set aside


class Settler:
    """Gathers results and writes them, one statement a batch."""

    def __init__(
        self, store: Store, outage: LoopOutage, pace: Pace, meter: Meter, clock: DatabaseClock, endpoints: Endpoints
    ) -> None:
        self._store = store
        self._endpoints = endpoints
        self._outage = outage
        self._pace = pace
        self._meter = meter
        self._clock = clock
        self._results: dict[bytes, Settlement] = {}
        self._later: list[Settlement] = []
        self._releases: list[tuple[Delivery, float]] = []
        self._aside = SetAside()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = False
        self._linger = LINGER_QUIET_SECONDS
        self._dead_letters = DeadLetterLog()
        self.looker = Looker(store)

    @property
    def unwritten(self) -> int:
        """How many results the next statements will write; not what waits for somebody's lock."""
        return len(self._results) + len(self._releases)

    @property
    def unsettled(self) -> int:
        """How many results the database has not taken yet."""
        return self._ready + len(self._later) + len(self._aside)

    @property
    def _ready(self) -> int:
        return len(self._results) + len(self._releases) + len(self.looker)

    def holds(self, delivery: Delivery) -> bool:
        """Tell whether this delivery's result is not in the database yet."""
        if delivery.id in self._results or delivery.id in self._aside:
            return True
        return any(released is delivery for released, _ in (*self._releases, *self._aside.releases))

    def settle(self, settlement: Settlement) -> None:
        """Take one attempt's result. A batch has one for each delivery; a second one waits for the next batch."""
        if settlement.delivery.members:
            for one in settlement.of_members():
                self.settle(one)
            return
        identity = settlement.delivery.id
        if identity in self._aside or self._results.setdefault(identity, settlement) is not settlement:
            self._later.append(settlement)
            return
        self._arrived.set()
        if len(self._results) >= BATCH:
            self._full.set()

    def release(self, delivery: Delivery, seconds: float) -> None:
        """Take one delivery that was leased and not sent; it becomes due after so many seconds."""
        self._releases.extend((one, seconds) for one in delivery.members or (delivery,))
        self._arrived.set()

    def close(self) -> None:
        """Write what is there without waiting for more; `run` ends once nothing is left."""
        self._closing = True
        self._arrived.set()
        self._full.set()

    async def run(self) -> None:
        """Write batches until closed and empty. Retries for as long as the database is away."""
        while not (self._closing and not self.unsettled):
            await self._until_work()
            if not self._closing:
                await self._gather()
            if not await self._flush():
                await asyncio.sleep(self._outage.pause_seconds)
        self._dead_letters.tell()

    async def _until_work(self) -> None:
        """Wait until something arrives, or it is time to try again what was set aside."""
        try:
            async with asyncio.timeout(self._aside.seconds_left):
                await self._arrived.wait()
        except TimeoutError:
            pass

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(self._linger):
                await self._full.wait()
        except TimeoutError:
            pass
        self._linger = LINGER_BUSY_SECONDS if len(self._results) >= BUSY_FROM else LINGER_QUIET_SECONDS

    async def _flush(self) -> bool:
        batch = self._next_batch()
        releases = self._releases[:]
        try:
            if batch:
                with self._pace.timing("settle"):
                    await self._write(batch)
            if releases:
                with self._pace.timing("release"):
                    held = await self._release(releases)
                del self._releases[: len(releases)]
                self._aside.put_last(releases=held)
            tried = await self._try_again()
            await self.looker.look()
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._outage.note_failure(error)
            await self._store.recover(error)
            return False
        if batch or releases or tried:
            self._outage.note_success()
        later, self._later = self._later, []
        self._arrived.clear()
        self._full.clear()
        for settlement in later:
            self.settle(settlement)
        if self._ready or (self._closing and not self._aside):
            self._arrived.set()
        if len(self._results) >= BATCH:  # they came meanwhile
            self._full.set()
        return True

    def _next_batch(self) -> list[Settlement]:
        """Return the results to write next. What was sent in one request is written in one statement."""
        results = list(self._results.values())
        end = BATCH
        while end < len(results) and _is_together(results[end - 1], results[end]):
            end += 1
        return results[:end]

    async def _write(self, batch: list[Settlement], until: float | None = None) -> None:
        """Settle a batch; halve one that the database refuses until the bad row is alone.

        `until`: the monotonic time from which a batch that waits for a lock is halved no more, but set aside.
        """
        try:
            settled = await self._store.settle(batch)
        except psycopg.Error as error:
            if is_locked(error):
                await self._write_unlocked(batch, time.monotonic() + PATIENCE_SECONDS if until is None else until)
                return
            if not is_refusal(error):
                raise
            if len(batch) > 1:
                await self._write_halves(batch, until)
                return
            settled = await self._write_alone(batch[0], error)
        self._conclude(batch, settled)

    async def _write_halves(self, batch: list[Settlement], until: float | None) -> None:
        await self._write(batch[: len(batch) // 2], until)
        await self._write(batch[len(batch) // 2 :], until)

    async def _write_unlocked(self, batch: list[Settlement], until: float) -> None:
        """Settle what of a batch waits for nobody, and set the others aside.

        Where nobody holds a delivery of it, the lock is on what follows from a result, such as the health of its
        endpoint, and halving finds which.
        """
        free = await self._set_held_aside(batch)
        if len(free) < len(batch):
            if free:
                await self._write(free, until)
        elif len(batch) > 1 and time.monotonic() < until:
            await self._write_halves(batch, until)
        else:
            self._set_aside(batch)

    async def _set_held_aside(self, batch: list[Settlement]) -> list[Settlement]:
        """Set aside the results whose delivery somebody holds; return the others."""
        locked = await self._store.find_locked([one.delivery.id for one in batch])
        self._set_aside([one for one in batch if one.delivery.id in locked])
        return [one for one in batch if one.delivery.id not in locked]

    def _set_aside(self, results: list[Settlement]) -> None:
        self._aside.put_last(results)
        for one in results:
            self._results.pop(one.delivery.id, None)

    async def _release(self, releases: list[tuple[Delivery, float]]) -> list[tuple[Delivery, float]]:
        """Release these; return those whose row somebody holds."""
        try:
            await self._store.release(releases)
        except psycopg.Error as error:
            if not is_locked(error):
                raise
            locked = await self._store.find_locked([delivery.id for delivery, _ in releases])
            await self._store.release([one for one in releases if one[0].id not in locked])
            return [one for one in releases if one[0].id in locked]
        return []

    async def _try_again(self) -> bool:
        """Write of what was set aside what is free now, if it is time; tell whether it was."""
        if self._aside.seconds_left != 0.0:
            return False
        batch, releases = self._aside.first(BATCH), self._aside.releases
        if batch and (free := await self._set_held_aside(batch)):
            await self._write(free, time.monotonic() + PATIENCE_SECONDS)
        if releases:
            self._aside.releases = await self._release(releases)
        held = self._aside.releases or any(one.delivery.id in self._aside for one in batch)
        self._aside.note_try(all_written=not held)
        return True

    async def _write_alone(self, settlement: Settlement, error: psycopg.Error) -> Settled:
        """Settle a refused result without what is kept of its answer; if refused again, its lease runs out."""
        log.error("%s: its result was refused: %s", settlement.delivery, one_line(error))
        try:
            return await self._store.settle([settlement._replace(kept=None)])
        except psycopg.Error as again:
            if not is_refusal(again):
                raise
            log.error("%s: left unsettled; it is sent again when its lease ends", settlement.delivery)
            return Settled()

    def _conclude(self, batch: list[Settlement], settled: Settled) -> None:
        """Forget the results that the database has taken; log dead letters and disabled subscriptions."""
        self._meter.settled(batch, len(settled.buried), self._clock.now())
        self._endpoints.note_written(settled.held | settled.held_alike)
        for settlement in batch:
            self._results.pop(settlement.delivery.id, None)
            self._aside.remove(settlement.delivery.id)
            if settlement.delivery.lane is not None and settlement.verdict.kind != VerdictKind.RETRY:
                self.looker.add([(settlement.delivery.subscription_id, settlement.delivery.lane)])
            if settlement.delivery.id in settled.buried:
                self._dead_letters.note(settlement)
        for subscription_id in settled.worn:
            name = text_id("sub", UUID(bytes=subscription_id))
            log.warning(
                "%s is disabled: its endpoint has only failed for days; relay subscriptions resume %s", name, name
            )
        for subscription_id in settled.disabled:
            name = text_id("sub", UUID(bytes=subscription_id))
            log.warning("%s is disabled: its endpoint answered 410 Gone; relay subscriptions resume %s", name, name)


def _is_together(one: Settlement, other: Settlement) -> bool:
    return one.delivery.batch is not None and one.delivery.batch == other.delivery.batch
