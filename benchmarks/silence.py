"""Milliseconds from COMMIT to the receiver for the first event after an hour's silence.

The relay polls ever more slowly over ten quiet minutes and then stays at its slowest pace, and its connections are
closed long before. Both are brought about here without the wait: the relay's own pacing runs with its minutes shortened
(`hasty_relay`), and the receiver hangs up before each event. Everything else is `relay run` by default.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from benchmarks.children import receiver, relay
from benchmarks.events import subscribe
from benchmarks.hasty_relay import ASLEEP_AFTER_SECONDS
from benchmarks.latency import Commits, arrivals, record_one, result_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench, Result

__all__ = ["run"]


def run(bench: Bench) -> Iterator[Result]:
    """Record one event at a time, each after a silence that puts the relay to its slowest pace."""
    with receiver("--log-ids") as logging, bench.server.outbox() as url:
        subscribe(url, [logging.url])
        with relay(bench, url, module=["benchmarks.hasty_relay"]):
            commits: Commits = {}
            for _ in range(bench.sizes.silent_events):
                logging.hang_up()
                time.sleep(ASLEEP_AFTER_SECONDS + random.uniform(0.5, 1.0))
                commits |= asyncio.run(record_one(url))
                arrived = arrivals(logging, commits)
            yield result_of("the same after an hour's silence", commits, arrived, None)
