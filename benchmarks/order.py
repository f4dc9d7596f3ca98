"""Deliveries a second of an ordered subscription, as a fraction of an unordered one in the same run.

The clock is that of `throughput`. Three shapes: 10,000 keys; a key for each event, so that every lane has one delivery;
and 10,000 keys next to a lane in which very many deliveries wait behind a head that is not due.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Result, median
from benchmarks.children import Receiver, receiver, relay
from benchmarks.events import subscribe
from benchmarks.throughput import Side, rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["run"]

KEYS = 10_000

_FILL = """
insert into outbox.events (type, key, payload)
select 'order.created', 'order-' || i %% %s, json_build_object('id', i, 'note', repeat('x', 400))::text
from generate_series(1, %s) i
"""
_DEEP = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, lane)
select outbox.uuid7(), i, s.id, case i when 1 then clock_timestamp() + interval '1 day' else 'infinity' end, 0
from outbox.subscriptions s cross join generate_series(1, %s) i
"""


@dataclass(frozen=True)
class Shape:
    """What one side sends: in order or not, by how many keys (0: one an event), next to so deep a lane."""

    name: str
    ordered: bool
    keys: int = KEYS
    deep: bool = False
    bar: float = 0.0


PLAIN = Shape("unordered", ordered=False)
SHAPES = [
    Shape(f"{KEYS:,} keys", ordered=True, bar=0.6),
    Shape("a key an event", ordered=True, keys=0, bar=0.9),
    Shape(f"{KEYS:,} keys, next to a deep lane", ordered=True, deep=True, bar=0.6),
]


def run(bench: Bench) -> Iterator[Result]:
    """Measure every shape and the unordered subscription in turn."""
    rates: dict[str, list[float]] = {shape.name: [] for shape in (PLAIN, *SHAPES)}
    with receiver() as counting:
        for _ in range(bench.sizes.rounds):
            for shape in (PLAIN, *SHAPES):
                rates[shape.name].append(rate(bench, _side(shape), counting, fan_out=1, processes=1))
                bench.say(f"order: {shape.name} {rates[shape.name][-1]:,.0f}/s")
    plain = median(rates[PLAIN.name])
    for shape in SHAPES:
        ours = median(rates[shape.name])
        what = f"ordered ÷ unordered, {shape.name}" + (f" of {bench.sizes.backlog:,}" if shape.deep else "")
        anchors = f"{ours:,.0f} of {plain:,.0f}/s"
        yield Result(what, f"{ours / plain:.2f}", f"≥ {shape.bar:.2f}", ours / plain >= shape.bar, anchors)


def _side(shape: Shape) -> Side:
    @contextmanager
    def database(bench: Bench, counting: Receiver, _fan_out: int) -> Iterator[str]:
        with bench.server.outbox() as url:
            subscribe(url, [counting.url], ordered=shape.ordered)
            if shape.deep:
                with bench.connection(url) as connection:
                    connection.execute(_DEEP, (bench.sizes.backlog,))
                    connection.execute("vacuum analyze outbox.deliveries")
                    connection.execute("checkpoint")
            yield url

    def fill(connection: psycopg.Connection[Any], events: int) -> None:
        connection.execute(_FILL, (shape.keys or events, events))

    return Side(shape.name, database, lambda bench, url, _, count: relay(bench, url, processes=count), fill, "outbox")
