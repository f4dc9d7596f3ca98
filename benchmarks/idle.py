"""Transactions a second of relays that have nothing to do, all together, by how many they are.

Each relay is a `relay run` of its own, as on a machine of its own. The server counts, once each has done its first
housekeeping: what was committed and what was rolled back in their database.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Result
from benchmarks.children import relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["run"]

BAR = 60
SETTLE_SECONDS = 15.0
COUNT = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"


def run(bench: Bench) -> Iterator[Result]:
    """Count for each number of relays, in a fresh database each time."""
    for relays in bench.sizes.idle_relays:
        rate = _rate(bench, relays)
        what = f"transactions/s of {relays} idle relays in all"
        yield Result(what, f"{rate:.0f}", f"≤ {BAR}", rate <= BAR, f"over {bench.sizes.idle_seconds:g} s")


def _rate(bench: Bench, relays: int) -> float:
    with bench.server.outbox() as url, ExitStack() as running, bench.connection(url) as connection:
        for _ in range(relays):
            running.enter_context(relay(bench, url))
        time.sleep(SETTLE_SECONDS)
        began, before = time.monotonic(), _count(connection)
        time.sleep(bench.sizes.idle_seconds)
        return (_count(connection) - before) / (time.monotonic() - began)


def _count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(COUNT).fetchone()
    return int(row[0] if row else 0)
