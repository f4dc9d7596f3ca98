"""What two hundred subscriptions whose name server never answers cost the others.

Three times the same load on 20 endpoints that are measured: alone; with 200 neighbours that each get an event when
the relay starts, and more all the while; and with as many neighbours whose names a name server on loopback leaves
without an answer, which the machine's own resolver asks. The measured endpoints close each connection, so that every
single delivery of theirs needs a lookup.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

import outbox
from benchmarks.bench import Bench, BenchmarkError, Result, median, percentile
from benchmarks.children import program, receiver, relay
from benchmarks.latency import Commits, arrivals
from benchmarks.server import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.children import Relay

__all__ = ["run"]

MEASURED, NEIGHBOURS = 20, 200
MEASURED_PER_SECOND, NEIGHBOURS_PER_SECOND = 50.0, 50.0
MOST_TIMES = 2.0


def run(bench: Bench) -> Iterator[Result]:
    """Measure without neighbours, with neighbours whose names are resolved, and with such whose names are not."""
    with program(["benchmarks.name_server"]) as names:
        port = int(names.next_line())
        alone, _ = _round(bench, port, "")
        alive, _ = _round(bench, port, "live")
        silent, threads = _round(bench, port, "dead")
    ratio = percentile(silent, 99) / percentile(alive, 99)
    yield Result(
        f"others' p99 while {NEIGHBOURS} subscriptions' name server is silent",
        f"{ratio:.2f} times",
        f"≤ {MOST_TIMES:g} times",
        ratio <= MOST_TIMES,
        f"p50 / p99 {_shown(silent)}, with the same neighbours answering {_shown(alive)}, without any {_shown(alone)}; "
        f"{len(silent):,} events each; at most {threads} threads",
    )


def _shown(milliseconds: list[float]) -> str:
    return f"{median(milliseconds):.1f} / {percentile(milliseconds, 99):.1f} ms"


def _round(bench: Bench, name_server: int, neighbours: str) -> tuple[list[float], int]:
    """Return the milliseconds from before COMMIT to arrival at the measured endpoints, and the most threads seen."""
    module = ["benchmarks.believing_relay", str(name_server)]
    with receiver("--log-ids", "--close") as logging, bench.server.outbox() as url:
        _subscribe(url, int(re.findall(r":(\d+)/", logging.url)[0]), neighbours)
        if neighbours:
            _record_at_once(url)
        with relay(bench, url, module=module) as running, _most_threads(running) as threads:
            commits = asyncio.run(_load(url, bench.sizes.silent_names_seconds, neighbours))
            arrived = arrivals(logging, commits)
    return [(arrived[event] - before) / 1e6 for event, (before, _) in commits.items()], threads[0]


def _subscribe(url: str, port: int, neighbours: str) -> None:
    outbox.allow_endpoints(allow_http=True)
    made = engine(url)
    with made.begin() as connection:
        others = NEIGHBOURS if neighbours else 0
        for kind, name, count in (("measured", "good", MEASURED), ("neighbour", neighbours, others)):
            for n in range(count):
                outbox.subscribe(connection, f"http://{name}{n}.example.com:{port}/hook", [f"{kind}.n{n}"])
    made.dispose()


def _record_at_once(url: str) -> None:
    made = engine(url)
    with made.begin() as connection:
        for n in range(NEIGHBOURS):
            outbox.record(connection, f"neighbour.n{n}", {"id": n})
    made.dispose()


async def _load(url: str, seconds: float, neighbours: str) -> Commits:
    """Record events of both kinds at random moments; return those that are measured."""
    commits: Commits = {}
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_record(url, "measured", MEASURED, MEASURED_PER_SECOND, end, commits))
        if neighbours:
            tasks.create_task(_record(url, "neighbour", NEIGHBOURS, NEIGHBOURS_PER_SECOND, end, {}))
    if not commits:
        raise BenchmarkError(f"no event was recorded in {seconds:g} s")
    return commits


async def _record(url: str, kind: str, count: int, rate: float, end: float, commits: Commits) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        due = time.monotonic()
        while (due := due + random.expovariate(rate)) < end:
            await asyncio.sleep(due - time.monotonic())
            event = await outbox.arecord(connection, f"{kind}.n{random.randrange(count)}", {"note": "x" * 400})
            before = time.monotonic_ns()
            await connection.commit()
            commits[event.id] = (before, time.monotonic_ns())


@contextmanager
def _most_threads(running: Relay) -> Iterator[list[int]]:
    """Yield a list whose one number is the most threads that a process of the relay had, looked at all the time."""
    most, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            now = [len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in running.pids]
            most[0] = max(most[0], *now)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield most
    finally:
        done.set()
        looking.join()
