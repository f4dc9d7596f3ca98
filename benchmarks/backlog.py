"""A database with very many deliveries outstanding, and the memory of a relay that works on them.

The rows lie and are due in the order in which fan_out would have inserted them.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Result, wait_until
from benchmarks.children import receiver, relay
from benchmarks.events import record_many, settled, subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

__all__ = ["SUBSCRIPTIONS", "backlog", "memory"]

SUBSCRIPTIONS = 100
MEMORY_MEGABYTES = 150
MEMORY_SECONDS = 15

_FILL = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, boost_seconds)
select outbox.uuid7(), e.seq, s.id, clock_timestamp() + make_interval(hours => %s)
       + row_number() over (order by e.seq, s.id) * interval '1 millisecond'
       - make_interval(secs => coalesce(p.boost, 0)), %s, p.boost
from outbox.events e cross join outbox.subscriptions s
cross join lateral (select nullif(e.seq %% %s, 0) * 900 as boost) p
"""


def memory(bench: Bench) -> Iterator[Result]:
    """Let a relay work on a large backlog for a while and read the most memory it ever held."""
    with (
        receiver() as counting,
        backlog(bench, hours=-1, attempts=0, endpoint=counting.url) as url,
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


def _as_it_is(_connection: psycopg.Connection[Any]) -> None:
    """Leave the fresh database as it is."""


@contextmanager
def backlog(
    bench: Bench,
    *,
    hours: int,
    attempts: int,
    priorities: int = 1,
    endpoint: str = "http://127.0.0.1:47999/hook",
    prepare: Callable[[psycopg.Connection[Any]], None] = _as_it_is,
) -> Iterator[str]:
    """Yield a database whose deliveries became due, or will, from so many hours from now.

    priorities: of the events in turn, 1 for none. prepare: is called before anything is recorded.
    """
    with bench.server.outbox() as url:
        subscribe(url, [f"{endpoint}/{number}" for number in range(SUBSCRIPTIONS)])
        with bench.connection(url) as connection:
            prepare(connection)
            record_many(connection, bench.sizes.backlog // SUBSCRIPTIONS)
            connection.execute("truncate outbox.pending")
            connection.execute(_FILL, (hours, attempts, priorities))
            connection.execute("vacuum analyze outbox.deliveries")
            connection.execute("checkpoint")
        yield url
