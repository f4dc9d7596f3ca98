"""The composition root of `relay run`: builds one process's parts, owns their tasks, and drains them at the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import resource
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from outbox._version import __version__
from relay.config.database_url import RELAY_NAME
from relay.engine.feeder import Feeder
from relay.engine.outage import Outage
from relay.engine.outgoing import Outgoing
from relay.engine.settler import Settler
from relay.http.configured import check_sender, make_sender
from relay.process import supervisor
from relay.process.housekeeping import Housekeeping
from relay.process.startup import check_database
from relay.secrets.keyring import Keyring
from relay.store.store import Store
from relay.telemetry.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from relay.config.options import Config

__all__ = ["run"]

log = logging.getLogger("relay")

LAST_WORDS_SECONDS = 5.0  # to settle what was answered, once the drain is over
SPARE_FILES = 64  # beside the sockets of requests
HURRY_SECONDS = 2.0  # after a second signal
ORPHAN_DRAIN_SECONDS = 0.5  # for a process whose parent is gone


def run(config: Config, *, until_drained: bool = False) -> int:
    """Run the relay until a signal, or until drained, and return its exit code.

    SIGTERM or SIGINT drains: nothing new is claimed, what is on the wire may finish within `drain_seconds`, the rest is
    given back. A second signal leaves at once.
    """
    set_up_logging(config)
    check_sender(config)
    check_database(config)
    if config.processes > 1 and not supervisor.is_child():
        return supervisor.supervise(config.processes)
    _raise_file_limit(config.max_in_flight)
    _collect_garbage_rarely()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config, until_drained=until_drained))
    return 0


async def _serve(config: Config, *, until_drained: bool) -> None:
    await _Process(config, until_drained=until_drained).serve()


class _Process:
    """Everything one relay process runs."""

    def __init__(self, config: Config, *, until_drained: bool) -> None:
        self._config = config
        self._stopping = asyncio.Event()
        self._hurry = anyio.CancelScope()
        self._drain_seconds = float(config.drain_seconds)
        self._keyring = Keyring(config.secret_key)
        conninfo = config.conninfo(application_name=RELAY_NAME)
        self._feed_store, self._settle_store = (
            Store(conninfo, asynchronous_commit=config.asynchronous_commit) for _ in range(2)
        )
        outage = Outage()
        self._settler = Settler(self._settle_store, outage)
        self._sender = make_sender(config)
        self._outgoing = Outgoing(
            self._sender,
            self._settler,
            max_in_flight=config.max_in_flight,
            max_in_flight_per_endpoint=config.max_in_flight_per_endpoint,
            keep_all_responses=config.keep_responses == "all",
            keyring=self._keyring,
            dice=random.random,
        )
        self._feeder = Feeder(
            self._feed_store, self._outgoing, outage, processes=config.processes, until_drained=until_drained
        )

    async def serve(self) -> None:
        """Run until told to stop or drained; then drain."""
        with self._signals():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Housekeeping(self._config).run)
                settled = anyio.Event()
                tasks.start_soon(self._settle, settled)
                log.info("relay %s running, process %d", __version__, os.getpid())
                await self._feeder.run()
                await self._drain(settled)
                tasks.cancel_scope.cancel()
        log.info("relay process %d stopped", os.getpid())

    async def _settle(self, settled: anyio.Event) -> None:
        await self._settler.run()
        settled.set()

    async def _drain(self, settled: anyio.Event) -> None:
        """Give back what has not begun, let the rest finish for a while, and settle everything that is known."""
        self._outgoing.release_waiting()
        with self._hurry, anyio.move_on_after(self._drain_seconds):
            await self._outgoing.finished()
        await self._outgoing.abort()
        self._settler.close()
        with anyio.move_on_after(LAST_WORDS_SECONDS):
            await settled.wait()
        if self._settler.unsettled:
            log.warning("%d results could not be settled; their leases run out", self._settler.unsettled)
        await self._sender.close()
        await self._feed_store.close()
        await self._settle_store.close()

    def _stop(self) -> None:
        """Begin the drain; the second time, cut it short. A database that hangs may hold up neither."""
        hurried = self._stopping.is_set()
        if hurried:
            self._hurry.cancel()
        patience = HURRY_SECONDS if hurried else self._drain_seconds + LAST_WORDS_SECONDS + HURRY_SECONDS
        asyncio.get_running_loop().call_later(patience, _leave)
        self._stopping.set()
        self._feeder.stop()

    def _orphaned(self) -> None:
        log.warning("the parent process is gone; stopping")
        asyncio.get_running_loop().remove_reader(supervisor.parent_pipe())
        self._drain_seconds = ORPHAN_DRAIN_SECONDS
        self._stop()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        if supervisor.is_child():
            loop.add_reader(supervisor.parent_pipe(), self._orphaned)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def _leave() -> None:
    """End the process without asking anything of it that could wait: leases run out, nothing is lost."""
    log.error("stopping takes too long; leaving as it is")
    logging.shutdown()
    os._exit(1)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows, and interpreters without a wheel
        return None
    return uvloop.new_event_loop


def _collect_garbage_rarely() -> None:
    """The default threshold collects every few deliveries, all of which reference counting frees already."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _raise_file_limit(max_in_flight: int) -> None:
    """Allow as many sockets as the machine lets us have: each endpoint keeps connections of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < max_in_flight + SPARE_FILES:
        log.warning("only %d files may be open (ulimit -n); %d requests at once may not fit", wanted, max_in_flight)
