"""Milliseconds from COMMIT to the receiver at several rates, with the relay running as by default.

The clock starts when the application is about to send COMMIT and stops when the receiver has read the request's
header: both are this machine's monotonic clock. Events come at random moments (a Poisson process), or they would keep
step with the relay's polling.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import psycopg

import outbox
from benchmarks.bench import Bench, BenchmarkError, Result, median, percentile, wait_until
from benchmarks.children import Receiver, receiver, relay
from benchmarks.events import subscribe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Commits", "arrivals", "record_one", "result_of", "run"]

P50_MILLISECONDS = 10
P99_MILLISECONDS = 50
RATES_WITH_A_BAR = (1, 50, 200)
WARM_UP_SECONDS = 1.0

Commits = dict[str, tuple[int, int]]
"""Event id to the monotonic nanoseconds before COMMIT was sent and after it returned."""


def run(bench: Bench) -> Iterator[Result]:
    """Measure each rate on one running relay."""
    with receiver("--log-ids") as logging, bench.server.outbox() as url:
        subscribe(url, [logging.url])
        with relay(bench, url):
            asyncio.run(record_at(url, 50, WARM_UP_SECONDS))
            for rate, seconds in bench.sizes.latency_seconds.items():
                commits = asyncio.run(record_at(url, rate, seconds))
                bar = (P50_MILLISECONDS, P99_MILLISECONDS) if rate in RATES_WITH_A_BAR else None
                yield result_of(f"commit → receiver p50 / p99, {rate:,}/s", commits, arrivals(logging, commits), bar)


def arrivals(logging: Receiver, commits: Commits) -> dict[str, int]:
    """Wait until every event has arrived, and return when each did."""
    wait_until(lambda: commits.keys() <= logging.report().arrivals.keys(), 30, "every event's arrival")
    return logging.report().arrivals


def result_of(what: str, commits: Commits, arrived: dict[str, int], bar: tuple[int, int] | None) -> Result:
    """Return the line of the table for these events."""
    milliseconds = [(arrived[event] - before) / 1e6 for event, (before, _) in commits.items()]
    commit = median([(after - before) / 1e6 for before, after in commits.values()])
    p50, p99 = median(milliseconds), percentile(milliseconds, 99)
    met = bar is None or (p50 <= bar[0] and p99 <= bar[1])
    return Result(
        what,
        f"{p50:.1f} / {p99:.1f} ms",
        f"≤ {bar[0]} / {bar[1]} ms" if bar else "",
        met,
        f"{len(milliseconds):,} events; COMMIT alone {commit:.1f} ms",
    )


async def record_at(url: str, rate: float, seconds: float) -> Commits:
    """Record events at random moments, `rate` a second, each in a transaction of its own."""
    commits: Commits = {}
    free: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
    for _ in range(max(2, min(24, int(rate / 20)))):
        free.put_nowait(await psycopg.AsyncConnection.connect(url))
    async with asyncio.TaskGroup() as tasks:
        began = due = time.monotonic()
        while (due := due + random.expovariate(rate)) < began + seconds:
            await asyncio.sleep(due - time.monotonic())
            tasks.create_task(_record(free, commits))
    while not free.empty():
        await free.get_nowait().close()
    if not commits:
        raise BenchmarkError(f"no event was recorded in {seconds:g} s")
    return commits


async def record_one(url: str) -> Commits:
    """Record one event on a connection of its own."""
    commits: Commits = {}
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await _timed(connection, commits)
    return commits


async def _record(free: asyncio.Queue[psycopg.AsyncConnection], commits: Commits) -> None:
    connection = await free.get()
    await _timed(connection, commits)
    free.put_nowait(connection)


async def _timed(connection: psycopg.AsyncConnection, commits: Commits) -> None:
    event = await outbox.arecord(connection, "order.created", {"id": len(commits), "note": "x" * 400})
    before = time.monotonic_ns()
    await connection.commit()
    commits[event.id] = (before, time.monotonic_ns())
