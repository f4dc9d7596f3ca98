"""Milliseconds of a claim where very many deliveries are outstanding, and of what grows with the leaves of events.

Claims are the engine's own, through its store: of as many rows as it finds worth a statement, and of its most. Beside
1,000 leaves, more than a relay ever makes, stand settling such a claim and the rounds of housekeeping.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.backlog import SUBSCRIPTIONS, backlog
from benchmarks.bench import Bench, BenchmarkError, Result, median, percentile
from relay.model.delivery import Delivery
from relay.model.outcome import OutcomeKind
from relay.model.settlement import Settlement
from relay.model.verdict import Verdict, VerdictKind
from relay.store.database import SETTINGS
from relay.store.lease import new_lease
from relay.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

    from relay.store.rows import Leased

__all__ = ["claim"]

ASKED = 8  # subscriptions in one claim
ROWS = 128  # a claim under load: free slots that the engine finds worth a statement
MOST_ROWS = 500  # the most it claims at once
DUE_FOR_EACH_CLAIM = 1_200  # they lie with all subscriptions, at random
POLL_LOOKS_BACK_SECONDS = 5
MILLISECONDS = 10
PRIORITIES = 4
LEAVES = 1_000
LOCKS = 100

_DUE_NOW = """
update outbox.deliveries set due_at = clock_timestamp() - random() * interval '1 hour'
where id in (select id from outbox.deliveries tablesample system (25) limit %s)
"""
_LEAVES = "select leaf::text from outbox.leaves_of('outbox.events')"
_ATTACH = "select outbox.attach_leaf('outbox.events', %s::name, 'seq', %s, %s)"
_LOCKS = "select count(*) from pg_locks where pid = pg_backend_pid()"
_ROUNDS = (
    "select outbox.make_event_leaf()",
    "select outbox.make_attempt_leaf()",
    "select * from outbox.retire_next_event_leaf(clock_timestamp() - interval '30 days', 0)",
    "select * from outbox.prune_events(clock_timestamp() - interval '30 days', 0, 2000)",
    "select * from outbox.retire_next_attempt_leaf(clock_timestamp() - interval '90 days', 0)",
    "select outbox.prune_attempts(clock_timestamp() - interval '90 days', 2000)",
    "select outbox.prune_resolutions(clock_timestamp() - interval '90 days', 2000)",
    "select outbox.drop_empty_leaf()",
)


class CountingStore(Store):
    """A store that counts the locks of each of its transactions, just before it commits."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(conninfo)
        self.locks: list[int] = []

    async def transaction(self, *asked: tuple[str, Sequence[object]], settings: str = SETTINGS) -> list[list[Any]]:
        *answers, ((locks,),) = await super().transaction(*asked, (_LOCKS, ()), settings=settings)
        self.locks.append(locks)
        return answers


def claim(bench: Bench) -> Iterator[Result]:
    """Time claims where everything is due, where it has priorities, where it backs off, and with 1,000 leaves."""
    with backlog(bench, hours=-1, attempts=0) as url:
        yield _timed(bench, url, f"claim, {bench.sizes.backlog:,} due")
        few_leaves, _ = asyncio.run(_settle(url, _ids(bench, url), bench.sizes.claims))
    with backlog(bench, hours=-1, attempts=0, priorities=PRIORITIES) as url:
        yield _timed(bench, url, f"claim, {bench.sizes.backlog:,} due with priorities")
    with backlog(bench, hours=24, attempts=3) as url:
        with bench.connection(url) as connection:
            connection.execute(_DUE_NOW, (bench.sizes.claims * DUE_FOR_EACH_CLAIM,))
        yield _timed(bench, url, f"claim, {bench.sizes.backlog:,} backing off")
    events = bench.sizes.backlog // SUBSCRIPTIONS
    with backlog(bench, hours=-1, attempts=0, prepare=lambda connection: _attach(connection, events)) as url:
        yield _timed(bench, url, f"claim, {bench.sizes.backlog:,} due, {LEAVES:,} leaves of events")
        yield _settled(few_leaves, *asyncio.run(_settle(url, _ids(bench, url), bench.sizes.claims)))
        yield _rounds(bench, url)


def _attach(connection: psycopg.Connection[Any], events: int) -> None:
    """Replace the leaves of events by 1,000 that take so many events together."""
    span = -(-events // LEAVES)
    for (leaf,) in connection.execute(_LEAVES).fetchall():
        connection.execute(f"drop table {leaf}")
    for first in range(1, LEAVES * span + 1, span):
        connection.execute(_ATTACH, (f"events_{first}", str(first), str(first + span)))


def _ids(bench: Bench, url: str) -> list[bytes]:
    with bench.connection(url) as connection:
        return [row[0].bytes for row in connection.execute("select id from outbox.subscriptions order by id")]


def _timed(bench: Bench, url: str, what: str) -> Result:
    claims, large, polls = asyncio.run(_claims(url, _ids(bench, url), bench.sizes.claims))
    middle = median(claims)
    return Result(
        f"{what}, {ROWS} rows",
        f"{middle:.1f} ms",
        f"≤ {MILLISECONDS} ms",
        middle <= MILLISECONDS,
        f"p99 {percentile(claims, 99):.1f} ms; {MOST_ROWS} rows {median(large):.1f} ms; poll {median(polls):.1f} ms",
    )


async def _claims(url: str, ids: list[bytes], count: int) -> tuple[list[float], list[float], list[float]]:
    """Claim for a few subscriptions at a time, in rotation: milliseconds of claims, of large ones, of polls."""
    store = Store(url)
    claims, large, polls = [], [], []
    await store.poll(-1, time.time())
    for turn in range(count):
        asked = [ids[(turn * ASKED + place) % len(ids)] for place in range(ASKED)]
        claims.append(await _milliseconds(_claim(store, asked, ROWS, new_lease())))
        large.append(await _milliseconds(_claim(store, asked, MOST_ROWS, new_lease())))
        polls.append(await _milliseconds(store.poll(-1, time.time() - POLL_LOOKS_BACK_SECONDS)))
    await store.close()
    return claims, large, polls


async def _claim(store: Store, asked: list[bytes], limit: int, lease: int) -> list[Leased]:
    slots = -(-limit // ASKED)
    rows = await store.claim([(subscription_id, slots) for subscription_id in asked], limit, 10**9, lease)
    if len(rows) != limit:
        raise BenchmarkError(f"a claim of {limit} rows took {len(rows)}")
    return rows


async def _settle(url: str, ids: list[bytes], count: int) -> tuple[list[float], int]:
    """Settle claims of a few subscriptions, one in eight of whose rows is buried; count the locks of a few more.

    Returns:
        Milliseconds of each; the most locks.
    """
    timed, counting = Store(url), CountingStore(url)
    times = []
    for turn in range(count + 5):
        store, lease = (timed if turn < count else counting), new_lease()
        asked = [ids[(turn * ASKED + place) % len(ids)] for place in range(ASKED)]
        settlements = [
            _settlement(row, lease, place) for place, row in enumerate(await _claim(store, asked, ROWS, lease))
        ]
        times.append(await _milliseconds(store.settle(settlements)))
    await timed.close()
    await counting.close()
    return times[:count], max(counting.locks)


def _settled(few_leaves: Sequence[float], times: Sequence[float], locks: int) -> Result:
    """Return the line of settling with very many leaves; `few_leaves` are the times with those of a fresh database."""
    middle = median(times)
    return Result(
        f"settling {ROWS} rows, {LEAVES:,} leaves of events",
        f"{middle:.1f} ms, {locks} locks",
        f"≤ {MILLISECONDS} ms, {LOCKS} locks",
        middle <= MILLISECONDS and locks <= LOCKS,
        f"p99 {percentile(times, 99):.1f} ms; {middle / median(few_leaves):.2f} times what it takes with few leaves;"
        f" one in {ASKED} buried; locks of a claim among them",
    )


def _settlement(row: Leased, lease: int, place: int) -> Settlement:
    delivery = Delivery(row.id, row.event_seq, row.subscription_id, row.attempts, lease, row.event, 1e18)
    if place % ASKED:
        return Settlement(delivery, Verdict(VerdictKind.DELIVERED), "", OutcomeKind.DELIVERED, 204, 3)
    return Settlement(delivery, Verdict(VerdictKind.DEAD), "", OutcomeKind.HTTP_4XX, 404, 3)


def _rounds(bench: Bench, url: str) -> Result:
    """Do each round of housekeeping that knows leaves a few times, and take it back."""
    times: dict[str, float] = {}
    most = 0
    with psycopg.connect(url, application_name="outbox-benchmarks") as connection:
        for statement in _ROUNDS:
            tries = []
            for _ in range(5):
                began = time.perf_counter()
                connection.execute(statement)
                tries.append((time.perf_counter() - began) * 1000)
                most = max(most, connection.execute(_LOCKS).fetchone()[0])
                connection.rollback()
            times[statement] = median(tries)
            bench.say(f"claim: {statement}: {times[statement]:.1f} ms")
    slowest = max(times, key=lambda statement: times[statement])
    return Result(
        f"the slowest round of housekeeping, {LEAVES:,} leaves of events",
        f"{times[slowest]:.1f} ms, {most} locks",
        f"≤ {MILLISECONDS} ms, {LOCKS} locks",
        times[slowest] <= MILLISECONDS and most <= LOCKS,
        slowest.split("outbox.")[1].split("(")[0],
    )


async def _milliseconds(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000
