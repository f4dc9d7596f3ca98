"""Events a second of a subscription with batches of 100, as a multiple of one whose events go alone, in the same run.

The clock runs from the commit of the events to the last attempt that the database took: the wait for a batch to be full
is in it. Rounds alternate.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, BenchmarkError, Result, median, wait_until
from benchmarks.children import receiver, relay
from benchmarks.events import record_many, settled, subscribe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.children import Receiver

__all__ = ["run"]

BAR = 3.0
SIZE = 100
DRAIN_SECONDS = 120


def run(bench: Bench) -> Iterator[Result]:
    """Measure both in turn."""
    sides = {"alone": None, f"batches of {SIZE}": SIZE}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    with receiver() as counting:
        for _ in range(bench.sizes.rounds):
            for name, size in sides.items():
                rates[name].append(_rate(bench, counting, size))
                bench.say(f"batches: {name} {rates[name][-1]:,.0f} events/s")
    alone, batched = (median(one) for one in rates.values())
    ratio = batched / alone
    anchors = f"{batched:,.0f} of {alone:,.0f} events/s"
    yield Result(f"batches of {SIZE} ÷ single events, http, 1 process", f"{ratio:.1f}", f"≥ {BAR:.0f}", ratio >= BAR,
                 anchors)  # fmt: skip


def _rate(bench: Bench, counting: Receiver, size: int | None) -> float:
    events = bench.sizes.deliveries // SIZE * SIZE
    with bench.server.outbox() as url, bench.connection(url) as connection:
        subscribe(url, [f"{counting.url}/0"], batch_events=size)
        counting.reset()
        with relay(bench, url):
            record_many(connection, events)
            began = time.time()
            wait_until(lambda: settled(connection)[0] >= events, DRAIN_SECONDS, "every settlement")
        count, at = settled(connection)
        requests = counting.report().count
    if count != events or requests < events // (size or 1):
        raise BenchmarkError(f"{count} settled of {events}, in {requests} requests")
    bench.say(f"batches: {events:,} events in {requests:,} requests")
    return events / (at - began)
