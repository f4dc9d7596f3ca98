"""What recording costs the application: its commits a second against the same row inserted into a plain table.

The plain table has the same columns and primary key, no trigger, partition, check or second index. No relay runs, so
that nothing but recording is measured. Rounds alternate between the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import Bench, BenchmarkError, Result, median
from benchmarks.children import START_SECONDS, STOP_SECONDS, program
from benchmarks.clients import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

BAR = 0.8
CLIENTS_WITH_THE_BAR = 32
CASES = [("session", 4), ("session", 32), ("sql", 32)]
NAMES = {"session": "commits: record()", "sql": "commits: SQL INSERT"}
EMPTY = "truncate outbox.events, outbox.pending, plain_events"


def run(bench: Bench) -> Iterator[Result]:
    """Measure each way of writing, recorded and plain in turn."""
    with bench.server.outbox() as url:
        with bench.connection(url) as connection:
            connection.execute(PLAIN)
        for way, clients in CASES:
            yield _case(bench, url, way, clients)


def _case(bench: Bench, url: str, way: str, clients: int) -> Result:
    what = f"{NAMES[way]} ÷ plain insert, {clients} clients"
    rates: dict[str, list[float]] = {"record": [], "plain": []}
    for _ in range(bench.sizes.record_rounds):
        for kind, measured in rates.items():
            measured.append(_rate(bench, url, f"{way}-{kind}", clients))
            bench.say(f"{what}: {kind} {measured[-1]:,.0f}/s")
    recorded, plain = median(rates["record"]), median(rates["plain"])
    ratio, barred = recorded / plain, clients == CLIENTS_WITH_THE_BAR
    return Result(
        what,
        f"{ratio:.2f}",
        f"≥ {BAR}" if barred else "",
        ratio >= BAR or not barred,
        f"{recorded:,.0f} of {plain:,.0f}/s",
    )


def _rate(bench: Bench, url: str, way: str, clients: int) -> float:
    with bench.connection(url) as connection:
        connection.execute(EMPTY)
        connection.execute("checkpoint")
    asked = ["benchmarks.clients", url, way, str(clients), str(bench.sizes.record_seconds)]
    with program(asked) as measuring:
        rate = measuring.next_line(bench.sizes.record_seconds + START_SECONDS)
        if measuring.wait(STOP_SECONDS):
            raise BenchmarkError(f"{way}: the clients failed: {measuring.last_words()}")
    return float(rate)
