"""What recording costs the application: commits against the same row inserted into a plain table.

The plain table has the same columns and primary key, no trigger, partition, check or second index. No relay runs, so
that nothing but recording is measured. Rounds alternate between the two.

The bar is on CPU, of client and server process together: on a machine without an idle core, commits a second are its
inverse, but they also move with whatever else runs there and with the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, BenchmarkError, Result, median, percentile
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
            yield from _case(bench, url, way, clients)


@dataclass(frozen=True)
class Cost:
    """One round: commits a second of all clients, and the microseconds of CPU that a commit took on either side."""

    rate: float
    client: float
    server: float

    @property
    def cpu(self) -> float:
        return self.client + self.server


def _case(bench: Bench, url: str, way: str, clients: int) -> Iterator[Result]:
    what = f"{NAMES[way]} against plain insert, {clients} clients"
    rounds: dict[str, list[Cost]] = {"record": [], "plain": []}
    for _ in range(bench.sizes.record_rounds):
        for kind, measured in rounds.items():
            measured.append(cost := _cost(bench, url, f"{way}-{kind}", clients))
            bench.say(f"{what}: {kind} {cost.rate:,.0f}/s, CPU {cost.client:.0f} + {cost.server:.0f} µs")
    pairs = list(zip(rounds["record"], rounds["plain"], strict=True))
    yield _ratio(f"{what}: CPU", clients, [plain.cpu / record.cpu for record, plain in pairs], _cpu(rounds))
    yield _ratio(f"{what}: commits/s", 0, [record.rate / plain.rate for record, plain in pairs], _rates(rounds))


def _ratio(what: str, clients: int, ratios: list[float], anchors: str) -> Result:
    """Return the median of the rounds' ratios; the spread of their middle half tells how well it repeats."""
    ratio, barred = median(ratios), clients == CLIENTS_WITH_THE_BAR
    spread = f"{percentile(ratios, 25):.2f}-{percentile(ratios, 75):.2f}"
    bar = f"≥ {BAR}" if barred else ""
    return Result(what, f"{ratio:.2f}", bar, ratio >= BAR or not barred, f"{spread}; {anchors}")


def _cpu(rounds: dict[str, list[Cost]]) -> str:
    sides = [(median([c.client for c in costs]), median([c.server for c in costs])) for costs in rounds.values()]
    recorded, plain = (f"{client:.0f} + {server:.0f}" for client, server in sides)
    return f"client + server: {recorded} of {plain} µs"


def _rates(rounds: dict[str, list[Cost]]) -> str:
    recorded, plain = (median([cost.rate for cost in costs]) for costs in rounds.values())
    return f"{recorded:,.0f} of {plain:,.0f}/s"


def _cost(bench: Bench, url: str, way: str, clients: int) -> Cost:
    with bench.connection(url) as connection:
        connection.execute(EMPTY)
        connection.execute("checkpoint")
    asked = ["benchmarks.clients", url, way, str(clients), str(bench.sizes.record_seconds)]
    with program(asked) as measuring:
        line = measuring.next_line(bench.sizes.record_seconds + START_SECONDS)
        if measuring.wait(STOP_SECONDS):
            raise BenchmarkError(f"{way}: the clients failed: {measuring.last_words()}")
    return Cost(*map(float, line.split()))
