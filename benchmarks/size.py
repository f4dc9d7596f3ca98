"""Throughput where the database has history, a backlog that waits, or a snapshot that is held open: each ÷ fresh (G3).

history: attempts of deliveries that are done. waiting: deliveries that back off. Both are made by SQL, in the form that
a relay leaves behind. snapshot: a transaction that was opened ten minutes before, while events were delivered all the
time, so that no dead row of theirs can be cleaned up. Each has one relay, and is measured after its first round.
Rounds alternate: fresh, history, waiting, snapshot, fresh, …
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, BenchmarkError, Result, median, wait_until
from benchmarks.children import receiver, relay
from benchmarks.events import record_many, subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import psycopg

    from benchmarks.children import Receiver

__all__ = ["run"]

BAR = 0.8
ATTEMPTS_EACH = 10  # of the backlog's size: ten million attempts beside a million that wait
SUBSCRIPTIONS = 100
DRAIN_SECONDS = 300
SAID_EVERY = 10  # rounds
MEASURED = 5  # rounds of some seconds each, the median of which counts: housekeeping or autovacuum fall into some

_HISTORY = """
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status, milliseconds)
select outbox.uuid7(), i, s.ids[1 + i %% array_length(s.ids, 1)], 1, 'delivered', 'delivered', 204, 3
from generate_series(1, %s) i, (select array_agg(id) as ids from outbox.subscriptions) s
"""
_WAITING = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts)
select outbox.uuid7(), i, s.ids[1 + i %% array_length(s.ids, 1)], clock_timestamp() + interval '1 day', 3
from generate_series(1, %s) i, (select array_agg(id) as ids from outbox.subscriptions where types = '{other.*}') s
"""


def run(bench: Bench) -> Iterator[Result]:
    """Measure a fresh database and each of the others in turn."""
    rates: dict[str, list[float]] = {name: [] for name in CONDITIONS}
    with receiver() as counting:
        for _ in range(bench.sizes.rounds):
            for name, condition in CONDITIONS.items():
                with bench.server.outbox() as url, bench.connection(url) as connection:
                    subscribe(url, [f"{counting.url}/0"])
                    with condition(bench, url, connection), relay(bench, url):
                        _rate(bench, connection, counting)
                        if condition is _snapshot:
                            _deliver_on(bench, connection, counting)
                        measured = [_rate(bench, connection, counting) for _ in range(MEASURED)]
                        rates[name].append(median(measured))
                bench.say(f"size: {name} {rates[name][-1]:,.0f}/s")
    fresh = median(rates.pop("fresh"))
    for name, found in rates.items():
        ratio = median(found) / fresh
        anchors = f"{median(found):,.0f} of {fresh:,.0f}/s; {bench.sizes.backlog:,} rows, ten times as many attempts"
        yield Result(f"throughput with {name} ÷ fresh", f"{ratio:.2f}", f"≥ {BAR:.2f}", ratio >= BAR, anchors)


def _rate(bench: Bench, connection: psycopg.Connection[Any], counting: Receiver) -> float:
    """Return the deliveries a second that the receiver saw, from the first to the last of a round."""
    counting.reset()
    record_many(connection, bench.sizes.deliveries)
    wait_until(lambda: counting.count() >= bench.sizes.deliveries, DRAIN_SECONDS, "every delivery")
    report = counting.report()
    if report.count != bench.sizes.deliveries:
        raise BenchmarkError(f"{report.count} received of {bench.sizes.deliveries}")
    return report.count / (report.last - report.first)


@contextmanager
def _fresh(_bench: Bench, _url: str, _connection: psycopg.Connection[Any]) -> Iterator[None]:
    yield


@contextmanager
def _history(bench: Bench, _url: str, connection: psycopg.Connection[Any]) -> Iterator[None]:
    # A relay has counted its attempts into the statistics long since; these would be one huge batch for it to count.
    connection.execute("alter table outbox.attempts disable trigger note_uncounted")
    connection.execute(_HISTORY, (bench.sizes.backlog * ATTEMPTS_EACH,))
    connection.execute("alter table outbox.attempts enable trigger note_uncounted")
    connection.execute("vacuum analyze outbox.attempts")
    connection.execute("checkpoint")
    yield


@contextmanager
def _waiting(bench: Bench, url: str, connection: psycopg.Connection[Any]) -> Iterator[None]:
    subscribe(url, [f"http://127.0.0.1:47999/{number}" for number in range(SUBSCRIPTIONS)], types=["other.*"])
    connection.execute(_WAITING, (bench.sizes.backlog,))
    connection.execute("vacuum analyze outbox.deliveries")
    connection.execute("checkpoint")
    yield


@contextmanager
def _snapshot(bench: Bench, url: str, _connection: psycopg.Connection[Any]) -> Iterator[None]:
    with bench.connection(url) as holding:
        holding.execute("begin isolation level repeatable read")
        holding.execute("select count(*) from outbox.pending")
        yield
        holding.execute("rollback")


def _deliver_on(bench: Bench, connection: psycopg.Connection[Any], counting: Receiver) -> None:
    """Deliver rounds of events for as long as the snapshot is to be held."""
    until, rounds = time.monotonic() + bench.sizes.snapshot_seconds, 0
    while time.monotonic() < until:
        rate, rounds = _rate(bench, connection, counting), rounds + 1
        if rounds % SAID_EVERY == 0:
            bench.say(
                f"size: {rounds * bench.sizes.deliveries:,} deliveries under the snapshot, the last {rate:,.0f}/s"
            )


CONDITIONS: dict[str, Callable[..., AbstractContextManager[None]]] = {
    "fresh": _fresh,
    "a history of attempts": _history,
    "deliveries that back off": _waiting,
    "a snapshot held open": _snapshot,
}
