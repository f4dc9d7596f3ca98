"""Build and run everything that one database needs: its connections, loops and endpoints; stop them in order."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import psycopg

from relay.engine.clock import DatabaseClock
from relay.engine.endpoint_registry import Endpoints
from relay.engine.feeder import Feeder
from relay.engine.lone_suspect import LoneSuspect
from relay.engine.meter import Meter, Unmetered
from relay.engine.outage import Outage
from relay.engine.pace import Pace
from relay.engine.poll_interval import SLOW_SECONDS
from relay.engine.sending import Sending
from relay.engine.settler import Settler
from relay.message.evaluator_process.evaluator import Evaluator
from relay.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.engine.room import Room
    from relay.http.sender import Sender
    from relay.secrets.keyring import Keyring

__all__ = ["Engine", "EngineOptions"]

log = logging.getLogger("relay")

LOOK_SECONDS = 2.0  # for the look at the database that is under way when the engine is told to stop
SETTLE_AFTER_DRAIN_SECONDS = 5.0  # to store results after the drain's time, or during it while none is taken


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine works on its database; the names are those of the configuration."""

    processes: int = 1
    max_in_flight_per_endpoint: int = 64
    drain_seconds: float = 30.0
    keep_all_responses: bool = False
    asynchronous_commit: bool = False
    idle_poll_seconds: float = SLOW_SECONDS
    priority_step_seconds: int = 600
    until_drained: bool = False
    meter: Meter = field(default_factory=Unmetered)


class Engine:
    """The data plane on one database, inside a running event loop.

    `conninfo` is a connection string, or a function that gives one for each connection.
    The room and the sender are the process's: several engines share them.
    """

    def __init__(
        self,
        conninfo: str | Callable[[], str],
        sender: Sender,
        room: Room,
        keyring: Keyring,
        options: EngineOptions,
        *,
        random_number: Callable[[], float] = random.random,
    ) -> None:
        self.feed_store, self.settle_store = (
            Store(conninfo, asynchronous_commit=options.asynchronous_commit) for _ in range(2)
        )
        self.outage, clock = Outage(), DatabaseClock()
        self.evaluator, self._pace = Evaluator(), Pace()
        self.endpoints = Endpoints(options.max_in_flight_per_endpoint, keyring, room.tenants)
        told = (self.settle_store, self.outage.of_loop(), self._pace, options.meter, clock, self.endpoints)
        self.settler, self._room = Settler(*told), room
        room.add_settler(self.settler)
        self.lone_suspect = LoneSuspect(self.settler)
        self.sending = Sending(
            sender,
            self.settler,
            self.endpoints,
            room,
            clock,
            self.lone_suspect,
            self.evaluator,
            keep_all_responses=options.keep_all_responses,
            random_number=random_number,
        )
        self.feeder = Feeder(
            self.feed_store,
            self.endpoints,
            room,
            self.sending,
            self.lone_suspect,
            clock,
            self.outage.of_loop(),
            self._pace,
            processes=options.processes,
            idle_poll_seconds=options.idle_poll_seconds,
            priority_step_seconds=options.priority_step_seconds,
            until_drained=options.until_drained,
            meter=options.meter,
        )
        self.settler.looker.tell_due = self.feeder.note_due
        self._drain_seconds = options.drain_seconds
        self._hurry, self._feeding = anyio.CancelScope(), anyio.CancelScope()

    async def run(self) -> None:
        """Deliver until stopped, or with `until_drained` until there is nothing to do; then drain and disconnect."""
        async with anyio.create_task_group() as tasks:
            settled, fed = anyio.Event(), anyio.Event()
            tasks.start_soon(self._settle, settled)
            tasks.start_soon(self._feed, fed)
            await self.feeder.until_stopping()
            finish_by = anyio.current_time() + self._drain_seconds
            await self._until_fed(fed)
            await self._drain(settled, finish_by)
            await self._leave_limits()
            await self.close()  # before its tasks are cancelled: psycopg would ask a server that hangs to stop first
            tasks.cancel_scope.cancel()

    async def _leave_limits(self) -> None:
        """Give back the shares of caps; where the database is away, they end by themselves."""
        with anyio.move_on_after(LOOK_SECONDS):
            try:
                await self.feeder.limiter.leave()
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.debug("shares of limits are not given back: %s", error)

    def stop(self, drain_seconds: float | None = None) -> None:
        """Take no more work, and let what is on the wire finish within `drain_seconds`; None: as configured."""
        if drain_seconds is not None:
            self._drain_seconds = drain_seconds
        self.feeder.stop()

    def hurry(self) -> None:
        """Cut what is still on the wire."""
        self._hurry.cancel()

    async def close(self) -> None:
        """Leave the room, end the process for what is large, and disconnect from the database.

        Nothing may be leased here any more.
        """
        self.feeder.close()
        self._room.remove_settler(self.settler)
        await self.evaluator.close()
        await self.feed_store.close()
        await self.settle_store.close()

    async def _feed(self, fed: anyio.Event) -> None:
        try:
            with self._feeding:
                await self.feeder.run()
        finally:
            fed.set()
            self.feeder.stop()

    async def _until_fed(self, fed: anyio.Event) -> None:
        """Wait for the look under way, for half of the drain at most; a database that hangs is left.

        What such a look leased meanwhile is not known here: its lease runs out.
        """
        with anyio.move_on_after(max(LOOK_SECONDS, min(self._drain_seconds / 2, 2 * self._pace.feeding_seconds))):
            await fed.wait()
        self._feeding.cancel()

    async def _settle(self, settled: anyio.Event) -> None:
        await self.settler.run()
        settled.set()

    async def _until_settled(self, settled: anyio.Event, finish_by: float) -> None:
        """Wait until each result is written; a delivery whose result is not is sent again.

        A slow database has until `finish_by` (time of anyio), as long as it takes a result every few seconds.
        """
        while not settled.is_set():
            left = self.settler.unsettled
            with anyio.move_on_after(SETTLE_AFTER_DRAIN_SECONDS):
                await settled.wait()
            if self.settler.unsettled >= left or anyio.current_time() >= finish_by:
                return

    async def _drain(self, settled: anyio.Event, finish_by: float) -> None:
        """Give back what has not begun, let the rest finish until `finish_by`, and settle every result.

        The order matters: an aborted attempt has a result too, and `close` ends the settler once it has none left.
        """
        self.sending.release_unbegun()
        with self._hurry, anyio.move_on_after(max(0.0, finish_by - anyio.current_time())):
            await self.sending.finish()
        await self.sending.abort()
        self.settler.close()
        await self._until_settled(settled, finish_by)
        if self.settler.unsettled:
            log.warning("%d results could not be settled; their leases run out", self.settler.unsettled)
