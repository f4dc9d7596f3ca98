"""How exactly limits are kept, by the receiver's own log: a fixed one over two processes, and one that is found out.

The limit is LIMIT requests a second with a burst. The receiver that is slowed to says 429 to all that comes beyond
what it takes; every delivery may be refused without being charged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import Bench, BenchmarkError, Result, wait_until
from benchmarks.children import receiver, relay
from benchmarks.events import record_many, subscribe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

LIMIT = 100
BURST = 10
ERROR_PERCENT = 2.0
TAKES = 20
SCHEDULE = [1, 2, 4, 8, 16, 32]


def run(bench: Bench) -> Iterator[Result]:
    """Measure both."""
    yield _fixed(bench)
    yield _found(bench)


def _fixed(bench: Bench) -> Result:
    seconds = bench.sizes.limit_seconds
    events = int(LIMIT * seconds)
    with receiver("--log-ids") as counting, bench.server.outbox() as url, bench.connection(url) as connection:
        subscribe(url, [counting.url])
        connection.execute("update outbox.subscriptions set rate_limit = %s, rate_burst = %s", (f"{LIMIT}/s", BURST))
        record_many(connection, events)
        with relay(bench, url, processes=2):
            wait_until(lambda: counting.report().count >= events, 2 * seconds + 30, "every event's arrival")
        times = sorted(at / 1e9 for at in counting.report().arrivals.values())
    # The burst comes at once; what is measured is the rate of what comes after it.
    rate = (len(times) - BURST) / (times[-1] - times[BURST - 1])
    error, most = abs(rate / LIMIT - 1) * 100, _most_in_a_second(times)
    return Result(
        f"limit {LIMIT}/s over two processes, {seconds:g} s: error; most in a second",
        f"{error:.2f} %; {most}",
        f"≤ {ERROR_PERCENT:g} %; ≤ {LIMIT + BURST}",
        met=error <= ERROR_PERCENT and most <= LIMIT + BURST,
        anchors=f"{rate:.2f} a second",
    )


def _found(bench: Bench) -> Result:
    events = int(TAKES * bench.sizes.limit_seconds)
    with (
        receiver("--log-ids", "--takes", str(TAKES)) as counting,
        bench.server.outbox() as url,
        bench.connection(url) as connection,
    ):
        subscribe(url, [counting.url])
        connection.execute("update outbox.subscriptions set schedule_seconds = %s", (SCHEDULE,))
        record_many(connection, events)
        with relay(bench, url, processes=2):
            wait_until(lambda: len(counting.report().arrivals) >= events, 3 * events / TAKES + 30, "every event")
        report = counting.report()
        dead = connection.execute("select count(*) from outbox.dead_letters").fetchone()[0]
    if dead:
        raise BenchmarkError(f"{dead} of {events} events became dead letters")
    times = sorted(at / 1e9 for at in report.arrivals.values())
    needed, took = (events - TAKES) / TAKES, times[-1] - times[0]
    refused = report.count - events
    return Result(
        f"429 beyond {TAKES}/s, {events:,} events, two processes: time against what it needs",
        f"{took / needed:.2f}×",
        "≤ 1.3×",
        met=took / needed <= 1.3,
        anchors=f"{took:.0f} s, {refused:,} refused, none charged or dead",
    )


def _most_in_a_second(times: list[float]) -> int:
    """Return the most that came in any one second."""
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - 1:
            first += 1
        most = max(most, last - first + 1)
    return most
