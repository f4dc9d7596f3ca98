"""Peak memory of a relay process that resolves and delivers one event for very many subscriptions (F10, F78)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, Result, wait_until
from benchmarks.children import receiver, relay

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

MEGABYTES = 150
WITHIN_SECONDS = 600

# Written by SQL: one by one, so many would take longer than what is measured. Their secrets are in clear.
_SUBSCRIBE = """
with made as (
    insert into outbox.subscriptions (url, types)
    select %s || '/' || i, '{order.*}' from generate_series(1, %s) i returning id)
insert into outbox.secrets (subscription_id, secret)
select id, 'whsec_' || encode(sha256(id::text::bytea), 'base64') from made
"""
_RECORD = (
    "insert into outbox.events (type, payload) values ('order.created', json_build_object('note', repeat('x', 400)))"
)


def run(bench: Bench) -> Iterator[Result]:
    """Record one event, and wait until each subscription has it."""
    subscriptions = bench.sizes.backlog // 10
    with receiver() as counting, bench.server.outbox() as url, bench.connection(url) as connection:
        connection.execute(_SUBSCRIBE, (counting.url, subscriptions))
        connection.execute("vacuum analyze")
        with relay(bench, url) as running:
            time.sleep(1)
            began = time.monotonic()
            connection.execute(_RECORD)
            wait_until(
                lambda: counting.report().count >= subscriptions, WITHIN_SECONDS, f"{subscriptions:,} deliveries"
            )
            seconds, megabytes = time.monotonic() - began, running.peak_bytes() / 1e6
    yield Result(
        f"peak memory, one event to {subscriptions:,} subscriptions",
        f"{megabytes:.0f} MB",
        f"≤ {MEGABYTES} MB",
        megabytes <= MEGABYTES,
        f"delivered in {seconds:.0f} s",
    )
