"""Run one process of `relay run`: build its parts, run their tasks, drain them at the end.

Engine._drain (relay/engine/engine.py) says in which order a drain goes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio

from outbox._version import __version__
from relay.config.database_url import RELAY_NAME
from relay.engine.engine import SETTLE_AFTER_DRAIN_SECONDS, Engine, EngineOptions
from relay.engine.room import Room
from relay.http.configured import make_sender
from relay.process import supervisor
from relay.process.housekeeping import Housekeeping
from relay.process.monitoring import make_meter, monitored
from relay.process.presence import Presence
from relay.process.requested_tests import RequestedTests
from relay.process.schema_watch import SchemaWatch
from relay.process.startup import check_database
from relay.secrets.keyring import Keyring
from relay.telemetry import metrics
from relay.telemetry.listener import require_metrics
from relay.telemetry.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import psycopg

    from relay.config.options import Config

__all__ = ["run"]

log = logging.getLogger("relay")

SPARE_FILES = 64  # beside the sockets of requests
HURRY_SECONDS = 2.0  # after a second signal
ORPHAN_DRAIN_SECONDS = 0.5  # when the parent process is gone


def run(config: Config, *, until_drained: bool = False) -> int:
    """Run the relay until a signal, or until drained, and return its exit code.

    SIGTERM or SIGINT drains: nothing new is claimed, what is on the wire may finish within `drain_seconds`, the rest is
    given back. A second signal stops at once. A migration that is for newer code drains as well; the code is 2 then.
    """
    set_up_logging(config)
    require_metrics(config)
    check_database(config)
    if config.processes > 1 and not supervisor.is_child():
        return supervisor.supervise(config)
    if not supervisor.is_child():
        os.environ.pop(metrics.DIRECTORY, None)  # it would make this one process count in files
    supervisor.note_ready()
    _raise_file_limit(config.max_in_flight)
    _collect_garbage_rarely()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(config, until_drained=until_drained))


async def _serve(config: Config, *, until_drained: bool) -> int:
    return await _Process(config, until_drained=until_drained).serve()


class _Process:
    """Everything one relay process runs: an engine for its database, housekeeping and test messages beside it."""

    def __init__(self, config: Config, *, until_drained: bool) -> None:
        self._config = config
        self._drain_seconds = float(config.drain_seconds)
        self._stopping = asyncio.Event()
        self._sender = make_sender(config)
        meter, self._registry = make_meter(config)
        options = EngineOptions(
            processes=config.processes,
            max_in_flight_per_endpoint=config.max_in_flight_per_endpoint,
            drain_seconds=self._drain_seconds,
            keep_all_responses=config.keep_responses == "all",
            asynchronous_commit=config.asynchronous_commit,
            idle_poll_seconds=config.idle_poll_milliseconds / 1000,
            priority_step_seconds=config.priority_step_seconds,
            until_drained=until_drained,
            meter=meter,
        )
        room, keyring = Room(config.max_in_flight), Keyring(config.secret_key)
        conninfo = partial(config.conninfo, application_name=RELAY_NAME)
        self._engine = Engine(conninfo, self._sender, room, keyring, options)
        self._presence = Presence(
            partial(config.conninfo, application_name=f"{RELAY_NAME} housekeeping"),
            processes=config.processes,
            key_ids=keyring.ids,
            leased=lambda: self._engine.sending.leased,
            unsent=self._engine.sending.unsent.for_long,
        )
        self._schema_watch = SchemaWatch(self._stop_unless_stopping)
        self._housekeeping = Housekeeping(config, self._between_rounds)
        self._tests = RequestedTests(config)
        self._engine.feeder.sweep.tell_test = self._tests.note

    async def serve(self) -> int:
        """Run until told to stop, drained or refused by a migration; then drain. Return the exit code."""
        async with monitored(self._config, self._registry):
            await self._deliver()
        log.info("relay process %d stopped", os.getpid())
        return supervisor.REFUSED if self._schema_watch.is_refused else 0

    async def _between_rounds(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await self._presence.sign(connection)
        await self._schema_watch.look(connection)

    async def _deliver(self) -> None:
        with self._handle_signals():
            await self._presence.sign_in()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._housekeeping.run)
                tasks.start_soon(self._tests.run)
                log.info("relay %s running, process %d", __version__, os.getpid())
                await self._engine.run()
                tasks.cancel_scope.cancel()
            await self._sender.close()
            await self._presence.sign_out()

    def _stop(self, drain_seconds: float | None = None) -> None:
        """Begin the drain; the second time, cut it short. After a limit exit anyway: the database may hang."""
        hurried = self._stopping.is_set()
        if hurried:
            self._engine.hurry()
        drain_seconds = self._drain_seconds if drain_seconds is None else drain_seconds
        limit_seconds = HURRY_SECONDS if hurried else drain_seconds + SETTLE_AFTER_DRAIN_SECONDS + HURRY_SECONDS
        asyncio.get_running_loop().call_later(limit_seconds, _exit_now)
        self._stopping.set()
        self._engine.stop(drain_seconds)

    def _stop_unless_stopping(self) -> None:
        if not self._stopping.is_set():
            self._stop()

    def _stop_without_parent(self) -> None:
        log.warning("the parent process is gone; stopping")
        asyncio.get_running_loop().remove_reader(supervisor.parent_pipe())
        self._stop(ORPHAN_DRAIN_SECONDS)

    @contextmanager
    def _handle_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        if supervisor.is_child():
            loop.add_reader(supervisor.parent_pipe(), self._stop_without_parent)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def _exit_now() -> None:
    """Exit without anything that could wait. Nothing is lost: leases run out."""
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
    """Raise the thresholds: the default collects every few deliveries, which reference counting frees anyway."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _raise_file_limit(max_in_flight: int) -> None:
    """Allow as many open files as the machine permits: each endpoint keeps connections of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < max_in_flight + SPARE_FILES:
        log.warning("only %d files may be open (ulimit -n); %d requests at once may not fit", wanted, max_in_flight)
