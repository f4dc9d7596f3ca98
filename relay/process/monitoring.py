"""Health and metrics of `relay run`: what is measured where, and who answers.

One process answers in its own event loop: /live then tells that the loop turns. With several, the parent answers from a
thread, and adds up what its children count in files (relay/telemetry/metrics.py).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.config.options import ConfigError
from relay.engine.meter import Unmetered
from relay.engine.outage import one_line
from relay.operations.connection import SCHEMA_SECONDS, Database
from relay.operations.gauges import read_gauges
from relay.telemetry import metrics
from relay.telemetry.gauges import Gauges, KeptGauges
from relay.telemetry.health import Health
from relay.telemetry.listener import listen
from relay.telemetry.redaction import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from relay.config.kinds import ListenAddress
    from relay.config.options import Config
    from relay.engine.meter import Meter

__all__ = ["answer_for_children", "keep_gauges", "make_meter", "monitored", "require_metrics"]

START_SECONDS = 10.0


def require_metrics(config: Config) -> None:
    """Raise ConfigError where metrics are asked for and cannot be made."""
    if config.metrics_listen and not metrics.is_installed():
        raise ConfigError(
            "metrics_listen: needs prometheus-client; pip install 'outbox-relay[metrics]', or leave it out"
        )


def keep_gauges(config: Config) -> KeptGauges:
    """Return the gauges of this configuration's database, read when they are asked for and kept for a while."""
    database = Database(config, check_again_seconds=SCHEMA_SECONDS)

    def read() -> Gauges:
        with database.transaction() as connection:
            return read_gauges(connection, None)

    return KeptGauges(read, _told)


def _told(error: Exception) -> str:
    return redact(one_line(getattr(error, "orig", None) or error))


def make_meter(config: Config) -> tuple[Meter, Any]:
    """Return what measures this process, and the registry that has it; None where that is in files, or nothing is."""
    if not config.metrics_listen and not os.environ.get(metrics.DIRECTORY):
        return Unmetered(), None
    registry = metrics.own_registry()
    return metrics.Metrics(registry), registry


@asynccontextmanager
async def monitored(config: Config, registry: Any) -> AsyncIterator[None]:
    """Answer for this one process while the block runs, if it is asked for and no parent does."""
    if not config.metrics_listen or registry is None:
        yield
        return
    gauges = keep_gauges(config)
    stands = metrics.make_registry(gauges.get, lambda: 0)
    health = Health(gauges.get, lambda: metrics.render(stands, registry), max_due_seconds=config.ready_max_due_seconds)
    address = config.metrics_listen
    async with AsyncExitStack() as stack:
        with _named_errors(address):
            await stack.enter_async_context(listen(health, address.host, address.port))
        yield


@contextmanager
def answer_for_children(config: Config, is_alive: Callable[[], bool], restarts: Callable[[], int]) -> Iterator[None]:
    """Answer for the children that are started in the block, from a thread, if it is asked for."""
    if not config.metrics_listen:
        yield
        return
    directory = tempfile.mkdtemp(prefix="outbox-relay-metrics-", dir=_memory())
    gauges = keep_gauges(config)
    stands = metrics.make_registry(gauges.get, restarts, directory)
    health = Health(
        gauges.get, lambda: metrics.render(stands), is_alive=is_alive, max_due_seconds=config.ready_max_due_seconds
    )
    os.environ[metrics.DIRECTORY] = directory
    try:
        address = config.metrics_listen
        with ExitStack() as stack:
            with _named_errors(address):
                stack.enter_context(_Thread(health, address.host, address.port))
            yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _memory() -> str | None:
    """Return where files live in memory, if there is such a place: a few hundred kilobytes for each process."""
    memory = Path("/dev/shm")  # noqa: S108 - the directory that is made there is ours alone
    return str(memory) if os.access(memory, os.W_OK) else None


@contextmanager
def _named_errors(address: ListenAddress) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"metrics_listen: cannot listen on {address}: {error.strerror or error}") from None


class _Thread:
    """An event loop in a thread that listens while the block runs."""

    def __init__(self, health: Health, host: str, port: int) -> None:
        self._health, self._address = health, (host, port)
        self._started = threading.Event()
        self._error: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="metrics", daemon=True)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with listen(self._health, *self._address):
                self._started.set()
                await self._stop.wait()
        except OSError as error:
            self._error = error
        finally:
            self._started.set()

    def __enter__(self) -> None:
        self._thread.start()
        self._started.wait(START_SECONDS)
        if self._error is not None:
            raise self._error

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(1.0)
