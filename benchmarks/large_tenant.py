"""What a tenant with a million due for 5,000 endpoints takes from one with ten: the p99 of the small one's new events.

The large tenant's endpoints either never answer, or all answer, so that the relay is busy with them as long as it is
measured. The small tenant records events at random moments. Rounds alternate: alone, beside either.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, BenchmarkError, Result
from benchmarks.children import receiver, relay
from benchmarks.events import subscribe
from benchmarks.hanging import WARM_UP_SECONDS, p99, record_at_random, shown
from benchmarks.latency import arrivals

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

LARGE, SMALL = 5_000, 10  # endpoints
MOST_TIMES = 2.0
ALONE, HANGING, ANSWERING = "alone", "beside endpoints that hang", "beside endpoints that answer"

_EVENTS = """
insert into outbox.events (type, tenant, payload)
select 'large.event', 'large', json_build_object('id', i, 'note', repeat('x', 400))::text
from generate_series(1, %s) i
"""
_DUE = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts)
select outbox.uuid7(), e.seq, s.id, clock_timestamp() - interval '1 hour'
       + row_number() over (order by e.seq, s.id) * interval '1 millisecond', 0
from outbox.events e join outbox.subscriptions s on s.tenant = e.tenant
"""


def run(bench: Bench) -> Iterator[Result]:
    """Measure the small tenant alone and beside either kind of the large one, in turn."""
    rounds: dict[str, list[list[float]]] = {ALONE: [], HANGING: [], ANSWERING: []}
    for _ in range(bench.sizes.rounds):
        for beside, found in rounds.items():
            found.append(_round(bench, beside))
            bench.say(f"large-tenant: {beside} {shown([found[-1]])}")
    due = f"a tenant with {bench.sizes.backlog:,} due for {LARGE:,} endpoints"
    for beside in (HANGING, ANSWERING):
        ratio = p99(rounds[beside]) / p99(rounds[ALONE])
        anchors = f"p50 / p99 {shown(rounds[beside])}, alone {shown(rounds[ALONE])}"
        has_bar = beside is HANGING
        yield Result(
            f"a small tenant's p99 {beside} of {due}", f"{ratio:.2f} times", f"≤ {MOST_TIMES:g} times" * has_bar,
            ratio <= MOST_TIMES or not has_bar, anchors,
        )  # fmt: skip


def _round(bench: Bench, beside: str) -> list[float]:
    """Return the milliseconds from before COMMIT to arrival at the small tenant's endpoints."""
    flags = ["--hang"] if beside is HANGING else []
    with receiver("--log-ids") as logging, receiver(*flags) as others, bench.server.outbox() as url:
        for n in range(SMALL):
            subscribe(url, [f"{logging.url}/{n}"], [f"new.n{n}"], tenant="small")
        if beside is not ALONE:
            _fill(bench, url, others.url)
        with relay(bench, url):
            asyncio.run(record_at_random(url, WARM_UP_SECONDS, _any_small))
            asked = others.report().count
            commits = asyncio.run(record_at_random(url, bench.sizes.hanging_seconds, _any_small))
            arrived = arrivals(logging, commits)
        asked = others.report().count - asked
    if beside is ANSWERING:
        bench.say(f"large-tenant: {asked / bench.sizes.hanging_seconds:,.0f} deliveries/s of the large one meanwhile")
    if beside is not ALONE and not asked:
        raise BenchmarkError("large-tenant: no endpoint of the large tenant was asked meanwhile")
    return [(arrived[event] - before) / 1e6 for event, (before, _) in commits.items()]


def _fill(bench: Bench, url: str, receiver_url: str) -> None:
    subscribe(url, [f"{receiver_url}/{n}" for n in range(LARGE)], ["large.*"], tenant="large")
    with bench.connection(url) as connection:
        connection.execute(_EVENTS, (bench.sizes.backlog // LARGE,))
        connection.execute("truncate outbox.pending")
        connection.execute(_DUE)
        connection.execute("vacuum analyze outbox.deliveries")
        connection.execute("checkpoint")


def _any_small() -> tuple[str, str]:
    return f"new.n{random.randrange(SMALL)}", "small"
