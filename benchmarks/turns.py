"""Milliseconds from COMMIT to the receiver behind a backlog: of another tenant's event, and of an urgent one.

The backlog is recorded in one transaction while the relay runs, so that it is pending, due and leased at once, as after
a mass change. The other events come once a second, each behind as many as were recorded first or more: as soon as fewer
are left, as many again are recorded. The slowest of them is judged.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import outbox
from benchmarks.bench import Bench, Result, median
from benchmarks.children import Receiver, receiver, relay
from benchmarks.latency import Commits, arrivals
from benchmarks.server import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["tenants", "urgent"]

RESOLVED_MILLISECONDS = 100
URGENT_MILLISECONDS = 1000
PRIORITIES = 4  # of a backlog that has them, in turn
SETTLE_SECONDS = 2.0  # after a backlog is recorded, before the next event is
_FILL = """
insert into outbox.events (type, tenant, key, priority, payload)
select 'order.created', %s, 'order-' || i %% 1000, i %% %s, json_build_object('id', i, 'note', repeat('x', 400))::text
from generate_series(1, %s) i
"""
_ONE = """
insert into outbox.events (type, tenant, priority, payload) values ('order.created', %s, %s, '{"id": 0}')
returning outbox.text_id('evt', id)
"""


def tenants(bench: Bench) -> Iterator[Result]:
    """One event a second of a tenant, while another tenant has a backlog."""
    events = bench.sizes.backlog // 5
    yield _behind(
        bench, events, ("one", "another"), 0, f"another tenant's event behind {events:,}", RESOLVED_MILLISECONDS
    )


def urgent(bench: Bench) -> Iterator[Result]:
    """One event a second of priority 3, while the backlog has none; then one without, of another tenant, behind all."""
    events = bench.sizes.backlog
    yield _behind(bench, events, ("", ""), 3, f"an event of priority 3 behind {events:,}", URGENT_MILLISECONDS)
    others = events // 5
    what = f"another tenant's event without priority behind {others:,} of priority 0 to 3"
    yield _behind(bench, others, ("one", "another"), 0, what, None, priorities=PRIORITIES)


def _behind(
    bench: Bench,
    events: int,
    whose: tuple[str, str],
    priority: int,
    what: str,
    bar: int | None,
    *,
    priorities: int = 1,
) -> Result:
    first, other = whose
    with receiver("--log-ids") as logging, bench.server.outbox() as url, relay(bench, url):
        _subscribe(url, logging, {first, other})
        with bench.connection(url) as connection:
            commits: Commits = {}
            recorded = 0
            for _ in range(bench.sizes.turns):
                if recorded - logging.count() < events:
                    connection.execute(_FILL, (first, priorities, events))
                    recorded += events
                    time.sleep(SETTLE_SECONDS)
                before = time.monotonic_ns()
                commits[_record(connection, other, priority)] = (before, time.monotonic_ns())
                time.sleep(1)
        arrived = arrivals(logging, commits)
    milliseconds = [(arrived[event] - before) / 1e6 for event, (before, _) in commits.items()]
    return Result(
        f"{what}, p50 / max",
        f"{median(milliseconds):.0f} / {max(milliseconds):.0f} ms",
        f"≤ {bar} ms" if bar else "",
        bar is None or max(milliseconds) <= bar,
        f"{len(milliseconds)} events, one a second",
    )


def _record(connection: psycopg.Connection[Any], tenant: str, priority: int) -> str:
    row = connection.execute(_ONE, (tenant, priority)).fetchone()
    return str(row[0] if row else "")


def _subscribe(url: str, logging: Receiver, whose: set[str]) -> None:
    outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)
    made = engine(url)
    with made.begin() as connection:
        for tenant in whose:
            outbox.subscribe(connection, logging.url, ["order.*"], tenant=tenant)
    made.dispose()
