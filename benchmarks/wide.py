"""Memory of a relay process beside very many subscriptions: one event for all, and as many made and removed (F10, F78).

One event goes to a hundred thousand subscriptions, without a filter and with a filter at one of them. Then a million
subscriptions are made and removed, a twentieth of them at a time; one in ten of them gets an event meanwhile.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Result, wait_until
from benchmarks.children import receiver, relay
from benchmarks.clients import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from benchmarks.children import Receiver, Relay

__all__ = ["SUBSCRIBE", "removed", "run"]

MEGABYTES = 150
HEARD = 10  # one in so many of those that are removed gets an event before
WITHIN_SECONDS = 600
LOOKS = 10  # at the memory, while subscriptions are made and removed
PARTS = 2  # of what is made and removed between two looks
SETTLE_SECONDS = 1.0  # for the relay to learn of subscriptions
FLAT = 1.1  # the last look's memory ÷ that of the first

# Written by SQL: one by one, so many would take longer than what is measured. Their secrets are in clear.
SUBSCRIBE = """
with made as (
    insert into outbox.subscriptions (tenant, url, types)
    select %s, %s || '/' || i, array[%s] from generate_series(1, %s) i returning id)
insert into outbox.secrets (subscription_id, secret)
select id, 'whsec_' || encode(sha256(id::text::bytea), 'base64') from made
"""
_FILTER = """
update outbox.subscriptions set filter = '{"payload": {"note": {"$exists": true}}}'
where id = (select id from outbox.subscriptions limit 1)
"""
_RECORD = "insert into outbox.events (type, payload) values (%s, json_build_object('note', repeat('x', 400)))"
_REMOVE = """
update outbox.subscriptions set removed_at = clock_timestamp() - interval '1 day'
where types[1] like 'left.%' and removed_at is null
"""


def run(bench: Bench) -> Iterator[Result]:
    """Record one event, and wait until each subscription has it."""
    yield _one_event(bench, "")
    yield _one_event(bench, ", one with a filter")


def _one_event(bench: Bench, which: str) -> Result:
    subscriptions = bench.sizes.backlog // 10
    with receiver() as counting, bench.server.outbox() as url, bench.connection(url) as connection:
        connection.execute(SUBSCRIBE, ("", counting.url, "order.*", subscriptions))
        if which:
            connection.execute(_FILTER)
        connection.execute("vacuum analyze")
        with relay(bench, url) as running:
            time.sleep(SETTLE_SECONDS)
            began, used = time.monotonic(), _cpu(running)
            connection.execute(_RECORD, ("order.created",))
            _await(counting, subscriptions)
            seconds, megabytes = time.monotonic() - began, running.peak_bytes() / 1e6
            used = _cpu(running) - used
    return Result(
        f"peak memory, one event to {subscriptions:,} subscriptions{which}",
        f"{megabytes:.0f} MB",
        f"≤ {MEGABYTES} MB",
        megabytes <= MEGABYTES,
        f"delivered in {seconds:.0f} s, {used:.0f} s of the relay's CPU",
    )


def _cpu(running: Relay) -> float:
    """Return the CPU seconds of the relay's processes."""
    return sum(cpu_seconds(pid) for pid in running.pids)


def removed(bench: Bench) -> Iterator[Result]:
    """Make and remove subscriptions, and read the memory at each tenth of all."""
    each = bench.sizes.backlog // LOOKS // PARTS
    seen: list[float] = []
    with receiver() as counting, bench.server.outbox() as url, bench.connection(url) as connection:
        connection.execute(SUBSCRIBE, ("", counting.url, "order.*", 1))
        with relay(bench, url) as running:
            for look in range(LOOKS):
                for _ in range(PARTS):
                    _make_and_remove(connection, counting, each)
                seen.append(running.resident_bytes() / 1e6)
                bench.say(f"removed: {(look + 1) * each * PARTS:,} made and removed: {seen[-1]:.0f} MB")
    ratio = seen[-1] / seen[0]
    yield Result(
        f"memory after {LOOKS * PARTS * each:,} subscriptions made and removed ÷ after {PARTS * each:,}",
        f"{ratio:.2f}",
        f"≤ {FLAT:.2f}",
        ratio <= FLAT,
        f"MB: {', '.join(f'{megabytes:.0f}' for megabytes in seen)}",
    )


def _make_and_remove(connection: psycopg.Connection[Any], counting: Receiver, count: int) -> None:
    """Make subscriptions, send an event to some, and remove all, so that housekeeping may delete their rows at once."""
    counting.reset()
    heard = count // HEARD
    connection.execute(SUBSCRIBE, ("", counting.url, "left.quiet", count - heard))
    connection.execute(SUBSCRIBE, ("", counting.url, "left.heard", heard))
    connection.execute(_RECORD, ("left.heard",))
    _await(counting, heard)
    connection.execute(_REMOVE)


def _await(counting: Receiver, deliveries: int) -> None:
    wait_until(lambda: counting.count() >= deliveries, WITHIN_SECONDS, f"{deliveries:,} deliveries")
