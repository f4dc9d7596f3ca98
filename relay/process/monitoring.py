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
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.config.option import ConfigError
from relay.engine.meter import Unmetered
from relay.operations.gauges import keep_gauges
from relay.telemetry import metrics
from relay.telemetry.health import Health
from relay.telemetry.listener import listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from relay.config.kinds import ListenAddress
    from relay.config.options import Config
    from relay.engine.meter import Meter

__all__ = ["answer_for_children", "make_meter", "monitored"]

START_SECONDS = 10.0


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
    async with listen(health, config.metrics_listen):
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
        with _Thread(health, config.metrics_listen):
            yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _memory() -> str | None:
    """Return where files live in memory, if there is such a place: a few hundred kilobytes for each process."""
    memory = Path("/dev/shm")  # noqa: S108 - the directory that is made there is ours alone
    return str(memory) if os.access(memory, os.W_OK) else None


class _Thread:
    """An event loop in a thread that listens while the block runs."""

    def __init__(self, health: Health, address: ListenAddress) -> None:
        self._health, self._address = health, address
        self._started = threading.Event()
        self._error: ConfigError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="metrics", daemon=True)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with listen(self._health, self._address):
                self._started.set()
                await self._stop.wait()
        except ConfigError as error:
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
