"""What a transformation costs: deliveries a second with one against without, and how long the worst can hold a relay.

Both sides send the same events, of about 600 bytes, to one endpoint; rounds alternate. The second line evaluates
hostile expressions in this process and counts its CPU time: the wall clock would also measure what else runs here.
The last lines (loop_hold.py) ask how long all of it, reading included, holds a relay's loop; filters too.
"""

from __future__ import annotations

import gc
import json
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Result, median
from benchmarks.children import receiver, relay
from benchmarks.events import subscribe
from benchmarks.hostile import HOSTILE
from benchmarks.loop_hold import HELD_MILLISECONDS, loop_holds
from benchmarks.throughput import Side, rate
from outbox.transformation import parse
from relay.message.transformation import json_text
from relay.message.transformation.budget import Budget, TransformationError
from relay.message.transformation.evaluate import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from benchmarks.children import Receiver

__all__ = ["run"]

BAR = 0.5
EXPRESSION = (
    "{order: data.id, customer: data.customer.email, at: timestamp, total: sum(data.items[*].price),"
    " skus: data.items[?price > `5`].sku, note: data.note}"
)
TRIES = 5  # the fastest of so many counts: the others were interrupted

_FILL = """
insert into outbox.events (type, key, payload)
select 'order.created', 'order-' || i %% 1000, json_build_object('id', i, 'note', repeat('x', 200),
    'customer', json_build_object('name', 'somebody', 'email', 'somebody@example.com'),
    'items', (select json_agg(json_build_object('sku', 'sku-' || n, 'price', n * 2.50)) from generate_series(1, 5) n)
    )::text
from generate_series(1, %s) i
"""


def run(bench: Bench) -> Iterator[Result]:
    """Measure throughput, then the time of hostile expressions."""
    rates: dict[str, list[float]] = {side.name: [] for side in SIDES}
    with receiver() as counting:
        for _ in range(bench.sizes.rounds):
            for side in SIDES:
                rates[side.name].append(rate(bench, side, counting, 1, 1))
                bench.say(f"transformation: {side.name} {rates[side.name][-1]:,.0f}/s")
    plain, transformed = (median(rates[side.name]) for side in SIDES)
    ratio = transformed / plain
    anchors = f"{transformed:,.0f} of {plain:,.0f}/s"
    yield Result("transformation ÷ none, http, 1 process", f"{ratio:.2f}", f"≥ {BAR:.2f}", ratio >= BAR, anchors)
    yield from _held(bench)
    yield from loop_holds(bench)


@contextmanager
def _outbox(bench: Bench, counting: Receiver, transformation: str | None) -> Iterator[str]:
    with bench.server.outbox() as url:
        subscribe(url, [f"{counting.url}/0"], transformation=transformation)
        yield url


def _fill(connection: psycopg.Connection[Any], events: int) -> None:
    connection.execute(_FILL, (events,))


def _side(name: str, transformation: str | None) -> Side:
    return Side(
        name,
        lambda bench, counting, _: _outbox(bench, counting, transformation),
        lambda bench, url, _, count: relay(bench, url, processes=count),
        _fill,
        "outbox",
    )


SIDES = [_side("none", None), _side("transformation", EXPRESSION)]


def _held(bench: Bench) -> Iterator[Result]:
    """Time evaluating and writing of hostile expressions."""
    gc.disable()  # as the relay does for such data
    try:
        times = {name: _milliseconds(*case) for name, case in HOSTILE.items()}
    finally:
        gc.enable()
    for name, (read, held) in times.items():
        bench.say(f"transformation: {name}: {held:.1f} ms, after {read:.1f} ms of reading")
    worst = max(times, key=lambda name: times[name][1])
    held, read = times[worst][1], max(one for one, _ in times.values())
    yield Result(
        f"CPU time of {len(HOSTILE)} hostile transformations, the longest",
        f"{held:.1f} ms",
        f"≤ {HELD_MILLISECONDS} ms",
        held <= HELD_MILLISECONDS,
        f"{worst}; reading 1 MiB {read:.0f} ms at most",
    )
    ordinary = json.dumps({"id": 7, "items": [{"sku": f"s{n}", "price": n} for n in range(5)], "note": "x" * 200})
    read, held = _milliseconds(EXPRESSION.replace("timestamp", "data.id"), ordinary.encode())
    yield Result("CPU time of an ordinary transformation", f"{(read + held) * 1000:.0f} µs")


def _milliseconds(expression: str, data: bytes) -> tuple[float, float]:
    """Return the least milliseconds of CPU for reading the data and letting it go, and for evaluating and writing."""
    run = compiled(parse(expression)).run
    return tuple(min(column) for column in zip(*(_once(run, data.decode()) for _ in range(TRIES)), strict=True))


def _once(run: Any, text: str) -> tuple[float, float]:
    began = time.thread_time()
    value = json_text.payload_of(text)
    read = time.thread_time()
    budget = Budget(text, value)
    whole = budget.make({"data": value})
    with suppress(TransformationError):
        json_text.bytes_of(run(whole, budget), budget)
    done = time.thread_time()
    del value, whole, budget
    return (read - began + time.thread_time() - done) * 1000, (done - read) * 1000
