"""What filters cost: deliveries a second behind filters that let one event in ten through, and CPU by how many exist.

A thousand subscriptions in two shapes, each against the same deliveries without filters. `spread`: a hundred tenants
with ten subscriptions each, one of which gets an event. `crowded`: one tenant, and a hundred of them get an event.
Without filters the same subscriptions get as much by their types. The filters are ranges, which nothing looks up.

`own`: each of so many subscriptions of one tenant and type has a filter of its own, on a customer; ten of them get
events, in turn. CPU is what the relay's and the server's processes used together, from the first event recorded to the
last settlement; so the work for those that do not match is what differs.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy

import outbox
from benchmarks.bench import Bench, BenchmarkError, Result, median, wait_until
from benchmarks.children import Receiver, Relay, receiver, relay
from benchmarks.events import settled
from benchmarks.keys import PUBLIC
from benchmarks.server import engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import psycopg

__all__ = ["run"]

SUBSCRIPTIONS = 1000
SHARES = 10
RATE_BAR = 0.5
FEW, MANY, CUSTOMERS = 10, 10_000, 10
CPU_BAR = 1.5
DRAIN_SECONDS = 300

_FILL = """
insert into outbox.events (tenant, type, key, payload)
select %(tenant)s || case when %(tenants)s > 1 then (i %% %(tenants)s)::text else '' end,
       'order.' || case when %(typed)s then 't' || i / %(tenants)s %% 10 else 'created' end, 'order-' || i %% 1000,
       json_build_object('id', i, 'share', i / %(tenants)s %% 10, 'customer', 'c-' || i %% %(customers)s,
                         'note', repeat('x', 400))::text
from generate_series(1, %(events)s) i
"""


@dataclass(frozen=True)
class Shape:
    """How the thousand lie: over so many tenants, and how many of them get an event."""

    name: str
    tenants: int
    matches: int


SHAPES = [Shape("spread", 100, 1), Shape("crowded", 1, 100)]
Wanted = tuple[str, str, dict[str, Any] | None]
"""A subscription's tenant, pattern and filter."""


def run(bench: Bench) -> Iterator[Result]:
    """Measure both shapes, then ten against ten thousand."""
    with receiver() as counting:
        for shape in SHAPES:
            yield _rates(bench, counting, shape)
        yield _own(bench, counting)


def _rates(bench: Bench, counting: Receiver, shape: Shape) -> Result:
    what = f"filters ÷ none, {SUBSCRIPTIONS:,} subscriptions, {shape.name}"
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(bench.sizes.rounds):
        for filtered, measured in rates.items():
            with _database(bench, counting, _thousand(shape, filtered=filtered)) as url:
                events = bench.sizes.deliveries // shape.matches
                seconds, _ = _drain(
                    bench, counting, url, events, shape.matches, tenants=shape.tenants, typed=not filtered
                )
            measured.append(events * shape.matches / seconds)
            bench.say(f"{what}: {'filters' if filtered else 'none'} {measured[-1]:,.0f}/s")
    with_filters, without = median(rates[True]), median(rates[False])
    ratio = with_filters / without
    return Result(what, f"{ratio:.2f}", f"≥ {RATE_BAR}", ratio >= RATE_BAR, f"{with_filters:,.0f} of {without:,.0f}/s")


def _thousand(shape: Shape, *, filtered: bool) -> Iterator[Wanted]:
    for number in range(SUBSCRIPTIONS):
        share = number // shape.tenants % SHARES
        tenant = f"t{number % shape.tenants}" if shape.tenants > 1 else "t"
        if filtered:
            yield tenant, "order.*", {"payload": {"share": {"$gte": share, "$lt": share + 1}}}
        else:
            yield tenant, f"order.t{share}", None


def _own(bench: Bench, counting: Receiver) -> Result:
    what = f"CPU an event, {MANY:,} own filters ÷ {FEW}"
    events = bench.sizes.deliveries
    costs: dict[int, list[float]] = {FEW: [], MANY: []}
    for count, measured in costs.items():
        wanted = [("t", "order.*", {"payload": {"customer": f"c-{number}"}}) for number in range(count)]
        with _database(bench, counting, wanted) as url:
            for _ in range(bench.sizes.rounds):
                _, cpu = _drain(bench, counting, url, events, 1)
                measured.append(cpu / events * 1e6)
                bench.say(f"{what}: {count:,} {measured[-1]:,.0f} µs")
    few, many = median(costs[FEW]), median(costs[MANY])
    return Result(what, f"{many / few:.2f}", f"≤ {CPU_BAR}", many / few <= CPU_BAR, f"{many:,.0f} of {few:,.0f} µs")


@contextmanager
def _database(bench: Bench, counting: Receiver, wanted: Iterable[Wanted]) -> Iterator[str]:
    """Yield the URL of a fresh database with these subscriptions of the receiver."""
    outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)
    seal = "insert into outbox.sealing_keys (id, key) values (:id, :key) on conflict do nothing"
    with bench.server.outbox() as url:
        made = engine(url)
        with made.begin() as connection:
            connection.execute(sqlalchemy.text(seal), {"id": PUBLIC.id, "key": PUBLIC.text})
            for number, (tenant, pattern, one) in enumerate(wanted):
                outbox.subscribe(connection, f"{counting.url}/{number}", [pattern], tenant=tenant, filter=one)
            connection.exec_driver_sql("analyze")
        made.dispose()
        yield url


def _drain(
    bench: Bench, counting: Receiver, url: str, events: int, matches: int, *, tenants: int = 1, typed: bool = False
) -> tuple[float, float]:
    """Record events under a running relay; return the seconds that their deliveries took, and the CPU in seconds."""
    expected = events * matches
    parameters = {"tenant": "t", "tenants": tenants, "typed": typed, "customers": CUSTOMERS, "events": events}
    with bench.connection(url) as connection, relay(bench, url) as running:
        counting.reset()
        before = settled(connection)[0]
        cpu = _cpu(running, connection)
        connection.execute(_FILL, parameters)
        done: Callable[[], bool] = partial(_is_done, connection, before + expected)
        wait_until(done, DRAIN_SECONDS, "every settlement")
        used = _cpu(running, connection) - cpu
        report, (count, at) = counting.report(), settled(connection)
    if not report.count == count - before == expected:
        raise BenchmarkError(f"{report.count} received, {count - before} settled of {expected}")
    return max(at, report.last) - report.first, used


def _is_done(connection: psycopg.Connection[Any], count: int) -> bool:
    return settled(connection)[0] >= count


def _cpu(running: Relay, connection: psycopg.Connection[Any]) -> float:
    """Return the seconds of CPU that the relay and its server processes have used so far."""
    sessions = "select pid from pg_stat_activity where application_name like 'outbox-relay%'"
    pids = [*running.pids, *(pid for (pid,) in connection.execute(sessions))]
    return sum(map(_seconds_of, pids)) / os.sysconf("SC_CLK_TCK")


def _seconds_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # utime and stime, in ticks
