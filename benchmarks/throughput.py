"""Deliveries a second with everything on, as a fraction of the bare loop in the same run.

Both sides are started and idle before the events are committed, all in one transaction. The clock runs from the first
request the receiver saw to the last attempt the database took. Rounds alternate: relay, bare, relay, bare, …
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import bare
from benchmarks.bench import Bench, BenchmarkError, Result, median, wait_until
from benchmarks.children import Receiver, bare_loop, certified, receiver, relay
from benchmarks.events import record_many, settled, subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

__all__ = ["Side", "outbox", "rate", "run"]

CASES = [
    ("http", 1, 1, 0.60),
    ("http", 1, 2, 0.55),
    ("http", 10, 1, 0.50),
    ("http", 10, 2, 0.50),
    ("https", 1, 1, 0.50),
    ("https", 1, 2, 0.50),
]
DRAIN_SECONDS = 120

_FILL_BARE = """
with e as (
    insert into bare.events (type, key, payload)
    select 'order.created', 'order-' || i %% 1000, json_build_object('type', 'order.created',
        'timestamp', '2026-01-01T00:00:00.000000Z', 'data', json_build_object('id', i, 'note', repeat('x', 400)))::text
    from generate_series(1, %s) i returning seq)
insert into bare.pending select seq from e
"""


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    database: Callable[[Bench, Receiver, int], AbstractContextManager[str]]
    process: Callable[[Bench, str, Receiver, int], AbstractContextManager[object]]
    fill: Callable[[psycopg.Connection[Any], int], object]
    schema: str


def run(bench: Bench) -> Iterator[Result]:
    """Measure every case, relay and bare loop in turn."""
    certificate = certified(bench.folder)
    for scheme, fan_out, processes, bar in CASES:
        options = ["--certificate", certificate] if scheme == "https" else []
        with receiver(*options, scheme=scheme) as counting:
            yield _case(bench, counting, scheme, fan_out, processes, bar)


def _case(bench: Bench, counting: Receiver, scheme: str, fan_out: int, processes: int, bar: float) -> Result:
    rates: dict[str, list[float]] = {side.name: [] for side in SIDES}
    what = f"relay ÷ bare loop, {scheme}, fan-out {fan_out}, {processes} process{'es' * (processes > 1)}"
    for _ in range(bench.sizes.rounds):
        for side in SIDES:
            rates[side.name].append(rate(bench, side, counting, fan_out, processes))
            bench.say(f"{what}: {side.name} {rates[side.name][-1]:,.0f}/s")
    ours, limit = (median(rates[side.name]) for side in SIDES)
    ratio = ours / limit
    return Result(what, f"{ratio:.2f}", f"≥ {bar:.2f}", ratio >= bar, f"{ours:,.0f} of {limit:,.0f}/s")


def rate(bench: Bench, side: Side, counting: Receiver, fan_out: int, processes: int) -> float:
    """Return the deliveries a second of one round; raises BenchmarkError where one is missing or too many."""
    deliveries = bench.sizes.deliveries
    with side.database(bench, counting, fan_out) as url, bench.connection(url) as connection:
        counting.reset()
        with side.process(bench, url, counting, processes):
            side.fill(connection, deliveries // fan_out)
            wait_until(lambda: counting.report().count >= deliveries, DRAIN_SECONDS, f"{side.name}: every delivery")
            wait_until(lambda: settled(connection, side.schema)[0] >= deliveries, 10, f"{side.name}: every settlement")
        count, at = settled(connection, side.schema)
        report = counting.report()
    if not report.count == count == deliveries:
        raise BenchmarkError(f"{side.name}: {report.count} received, {count} settled of {deliveries}")
    return deliveries / (max(at, report.last) - report.first)


@contextmanager
def outbox(bench: Bench, counting: Receiver, fan_out: int) -> Iterator[str]:
    """Yield the URL of a database with so many subscriptions of the receiver."""
    with bench.server.outbox() as url:
        subscribe(url, [f"{counting.url}/{number}" for number in range(fan_out)])
        yield url


@contextmanager
def _bare(bench: Bench, _counting: Receiver, fan_out: int) -> Iterator[str]:
    with bench.server.database() as url:
        with bench.connection(url) as connection:
            connection.execute(bare.SCHEMA)
            connection.execute("insert into bare.subscriptions select generate_series(1, %s)", (fan_out,))
        yield url


SIDES = [
    Side("relay", outbox, lambda bench, url, _, count: relay(bench, url, processes=count), record_many, "outbox"),
    Side(
        "bare loop",
        _bare,
        lambda bench, url, counting, count: bare_loop(bench, url, counting.url, count),
        lambda connection, events: connection.execute(_FILL_BARE, (events,)),
        "bare",
    ),
]
