"""What endpoints that hang cost the healthy ones beside them: the p99 of new events, with them ÷ without them.

Ten tenants have ten endpoints each. Half of a tenant's endpoints take each request and never answer, and all that is
due is theirs. The other half answer, and get new events at random moments. Rounds alternate: without the hanging
endpoints and what is due to them, with both, without, …
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import psycopg

import outbox
from benchmarks.bench import Bench, BenchmarkError, Result, median, percentile
from benchmarks.children import Receiver, receiver, relay
from benchmarks.events import subscribe
from benchmarks.latency import Commits, arrivals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["WARM_UP_SECONDS", "p99", "record_at_random", "run", "shown"]

TENANTS, HEALTHY, HANGING = 10, 5, 5  # endpoints of each tenant
PER_SECOND = 50.0
WARM_UP_SECONDS = 2.0
MOST_TIMES = 2.0

_EVENTS = """
insert into outbox.events (type, tenant, payload)
select 'held.event', 'tenant' || i %% %s, json_build_object('id', i, 'note', repeat('x', 400))::text
from generate_series(1, %s) i
"""
_DUE = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts)
select outbox.uuid7(), e.seq, s.id, clock_timestamp() - interval '1 hour'
       + row_number() over (order by e.seq, s.id) * interval '1 millisecond', 0
from outbox.events e join outbox.subscriptions s on s.tenant = e.tenant and s.types = '{held.*}'
"""


def run(bench: Bench) -> Iterator[Result]:
    """Measure without and with the hanging endpoints, in turn."""
    rounds: dict[bool, list[list[float]]] = {False: [], True: []}
    for _ in range(bench.sizes.rounds):
        for hanging, found in rounds.items():
            found.append(_round(bench, hanging=hanging))
            bench.say(f"hanging: {'with' if hanging else 'without'} {shown([found[-1]])}")
    ratio = p99(rounds[True]) / p99(rounds[False])
    yield Result(
        f"healthy endpoints' p99, {TENANTS * HANGING} of {TENANTS * (HEALTHY + HANGING)} hang,"
        f" {bench.sizes.backlog:,} due",
        f"{ratio:.2f} times",
        f"≤ {MOST_TIMES:g} times",
        ratio <= MOST_TIMES,
        f"p50 / p99 {shown(rounds[True])}, without the hanging ones {shown(rounds[False])}; {TENANTS} tenants",
    )


def p99(rounds: list[list[float]]) -> float:
    """Return the median of the rounds' p99."""
    return median([percentile(one, 99) for one in rounds])


def shown(rounds: list[list[float]]) -> str:
    """Return p50 and p99 as the table has them."""
    return f"{median([median(one) for one in rounds]):.1f} / {p99(rounds):.1f} ms"


def _round(bench: Bench, *, hanging: bool) -> list[float]:
    """Return the milliseconds from before COMMIT to arrival at the healthy endpoints."""
    with receiver("--log-ids") as logging, receiver("--hang") as holding, bench.server.outbox() as url:
        for tenant in range(TENANTS):
            for n in range(HEALTHY):
                subscribe(url, [f"{logging.url}/{tenant}-{n}"], [f"new.n{n}"], tenant=f"tenant{tenant}")
        if hanging:
            _fill(bench, url, holding)
        with relay(bench, url):
            asyncio.run(record_at_random(url, WARM_UP_SECONDS, _any_healthy))
            commits = asyncio.run(record_at_random(url, bench.sizes.hanging_seconds, _any_healthy))
            arrived = arrivals(logging, commits)
        if hanging and not holding.report().count:
            raise BenchmarkError("hanging: no endpoint was ever asked")
    return [(arrived[event] - before) / 1e6 for event, (before, _) in commits.items()]


def _fill(bench: Bench, url: str, holding: Receiver) -> None:
    for tenant in range(TENANTS):
        endpoints = [f"{holding.url}/{tenant}-{n}" for n in range(HANGING)]
        subscribe(url, endpoints, ["held.*"], tenant=f"tenant{tenant}")
    with bench.connection(url) as connection:
        connection.execute(_EVENTS, (TENANTS, bench.sizes.backlog // HANGING))
        connection.execute("truncate outbox.pending")
        connection.execute(_DUE)
        connection.execute("vacuum analyze outbox.deliveries")
        connection.execute("checkpoint")


def _any_healthy() -> tuple[str, str]:
    tenant, n = random.randrange(TENANTS), random.randrange(HEALTHY)
    return f"new.n{n}", f"tenant{tenant}"


async def record_at_random(url: str, seconds: float, choose: Callable[[], tuple[str, str]]) -> Commits:
    """Record events, one a transaction, at random moments; `choose` gives the type and the tenant of each."""
    commits: Commits = {}
    end = time.monotonic() + seconds
    async with await psycopg.AsyncConnection.connect(url) as connection:
        due = time.monotonic()
        while (due := due + random.expovariate(PER_SECOND)) < end:
            await asyncio.sleep(due - time.monotonic())
            type_, tenant = choose()
            event = await outbox.arecord(connection, type_, {"note": "x" * 400}, tenant=tenant)
            before = time.monotonic_ns()
            await connection.commit()
            commits[event.id] = (before, time.monotonic_ns())
    return commits
