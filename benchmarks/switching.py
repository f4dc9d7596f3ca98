"""How fast order is switched on and off for a subscription with a backlog, by one relay."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Result, wait_until
from benchmarks.children import receiver, relay
from benchmarks.events import subscribe

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["run"]

KEYS = 1000
WITHIN_SECONDS = 600

_FILL = """
with recorded as (
    insert into outbox.events (type, key, payload)
    select 'order.created', 'order-' || i %% %s, '{}' from generate_series(1, %s) i returning seq)
insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
select outbox.uuid7(), r.seq, s.id, clock_timestamp() + interval '1 day'
from recorded r cross join outbox.subscriptions s
"""


def run(bench: Bench) -> Iterator[Result]:
    """Switch it on over deliveries that wait for a retry, and off again."""
    rows = max(KEYS, bench.sizes.backlog // 20)
    with receiver() as counting, bench.server.outbox() as url, bench.connection(url) as connection:
        subscribe(url, [f"{counting.url}/0"])
        connection.execute(_FILL, (KEYS, rows))
        connection.execute("truncate outbox.pending")
        connection.execute("vacuum analyze")
        with relay(bench, url):
            on = _seconds(connection, ordered=True, left="outbox.subscriptions where sorting_since is not null")
            off = _seconds(connection, ordered=False, left="outbox.deliveries where due_at = 'infinity'")
    yield Result(f"order switched on / off, {rows:,} waiting", f"{rows / on:,.0f} / {rows / off:,.0f} rows/s",
                 anchors=f"{on:.1f} / {off:.1f} s")  # fmt: skip


def _seconds(connection: psycopg.Connection[Any], *, ordered: bool, left: str) -> float:
    began = time.monotonic()
    connection.execute("update outbox.subscriptions set ordered = %s", (ordered,))
    wait_until(
        lambda: connection.execute(f"select not exists (select from {left})").fetchone() == (True,),
        WITHIN_SECONDS,
        "the switch",
    )
    return time.monotonic() - began
