"""A database with very many deliveries outstanding, and what that costs: the time of a claim, and memory.

Claims are the engine's own, through its store: of as many rows as it finds worth a statement, and of its most.
The rows lie and are due in the order in which fan_out would have inserted them.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, BenchmarkError, Result, median, percentile, wait_until
from benchmarks.children import receiver, relay
from benchmarks.events import record_many, settled, subscribe
from relay.store.lease import new_lease
from relay.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

__all__ = ["claim", "memory"]

SUBSCRIPTIONS = 100
ASKED = 8  # subscriptions in one claim
ROWS = 128  # a claim under load: free slots that the engine finds worth a statement
MOST_ROWS = 500  # the most it claims at once
DUE_FOR_EACH_CLAIM = 800
POLL_LOOKS_BACK_SECONDS = 5
CLAIM_MILLISECONDS = 10
MEMORY_MEGABYTES = 150
MEMORY_SECONDS = 15

_FILL = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts)
select outbox.uuid7(), e.seq, s.id, clock_timestamp() + make_interval(hours => %s)
       + row_number() over (order by e.seq, s.id) * interval '1 millisecond', %s
from outbox.events e cross join outbox.subscriptions s
"""
_DUE_NOW = """
update outbox.deliveries set due_at = clock_timestamp() - random() * interval '1 hour'
where id in (select id from outbox.deliveries tablesample system (25) limit %s)
"""


def claim(bench: Bench) -> Iterator[Result]:
    """Time claims where everything is due, and where next to everything waits for its next attempt."""
    with _backlog(bench, hours=-1, attempts=0) as url:
        yield _timed(bench, url, f"claim, {bench.sizes.backlog:,} due")
    with _backlog(bench, hours=24, attempts=3) as url:
        with bench.connection(url) as connection:
            connection.execute(_DUE_NOW, (bench.sizes.claims * DUE_FOR_EACH_CLAIM,))
        yield _timed(bench, url, f"claim, {bench.sizes.backlog:,} backing off")


def memory(bench: Bench) -> Iterator[Result]:
    """Let a relay work on a large backlog for a while and read the most memory it ever held."""
    with (
        receiver() as counting,
        _backlog(bench, hours=-1, attempts=0, endpoint=counting.url) as url,
        bench.connection(url) as connection,
        relay(bench, url) as running,
    ):
        time.sleep(MEMORY_SECONDS)
        wait_until(lambda: counting.report().count > 0, 10, "a delivery")
        megabytes = running.peak_bytes() / 1e6
        running.stop()
        delivered = settled(connection)[0]
    yield Result(
        f"peak memory of a process, {bench.sizes.backlog:,} due",
        f"{megabytes:.0f} MB",
        f"≤ {MEMORY_MEGABYTES} MB",
        megabytes <= MEMORY_MEGABYTES,
        f"over {MEMORY_SECONDS} s and {delivered:,} deliveries",
    )


@contextmanager
def _backlog(
    bench: Bench, *, hours: int, attempts: int, endpoint: str = "http://127.0.0.1:47999/hook"
) -> Iterator[str]:
    """Yield a database whose deliveries became due, or will, from so many hours from now."""
    with bench.server.outbox() as url:
        subscribe(url, [f"{endpoint}/{number}" for number in range(SUBSCRIPTIONS)])
        with bench.connection(url) as connection:
            record_many(connection, bench.sizes.backlog // SUBSCRIPTIONS)
            connection.execute("truncate outbox.pending")
            connection.execute(_FILL, (hours, attempts))
            connection.execute("vacuum analyze outbox.deliveries")
            connection.execute("checkpoint")
        yield url


def _timed(bench: Bench, url: str, what: str) -> Result:
    with bench.connection(url) as connection:
        ids = [row[0].bytes for row in connection.execute("select id from outbox.subscriptions order by id")]
    claims, large, polls = asyncio.run(_claims(url, ids, bench.sizes.claims))
    middle = median(claims)
    return Result(
        f"{what}, {ROWS} rows",
        f"{middle:.1f} ms",
        f"≤ {CLAIM_MILLISECONDS} ms",
        middle <= CLAIM_MILLISECONDS,
        f"p99 {percentile(claims, 99):.1f} ms; {MOST_ROWS} rows {median(large):.1f} ms; poll {median(polls):.1f} ms",
    )


async def _claims(url: str, ids: list[bytes], count: int) -> tuple[list[float], list[float], list[float]]:
    """Claim for a few subscriptions at a time, in rotation: milliseconds of claims, of large ones, of polls."""
    store = Store(url)
    claims, large, polls = [], [], []
    await store.poll(-1, time.time())
    for turn in range(count):
        asked = [ids[(turn * ASKED + place) % len(ids)] for place in range(ASKED)]
        claims.append(await _milliseconds(_claim(store, asked, ROWS)))
        large.append(await _milliseconds(_claim(store, asked, MOST_ROWS)))
        polls.append(await _milliseconds(store.poll(-1, time.time() - POLL_LOOKS_BACK_SECONDS)))
    await store.close()
    return claims, large, polls


async def _claim(store: Store, asked: list[bytes], limit: int) -> None:
    slots = -(-limit // ASKED)
    rows = await store.claim([(subscription_id, slots) for subscription_id in asked], limit, 10**9, new_lease())
    if len(rows) != limit:
        raise BenchmarkError(f"a claim of {limit} rows took {len(rows)}")


async def _milliseconds(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000
