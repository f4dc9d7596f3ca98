"""Deliveries a second while many events are pending, of no tenant and of several: each ÷ those of a round of few.

Events are recorded in one transaction while the relay runs, and no ANALYZE has seen them yet: so it is after a mass
change, or when a relay starts again that stood still. Each round has a fresh database; the clock runs from the first
delivery until as many have come as a round of few has events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import Bench, Result, median, wait_until
from benchmarks.children import Receiver, receiver, relay
from benchmarks.events import subscribe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

BAR = 0.8
TENANTS = 20
DRAIN_SECONDS = 300
_FILL = """
insert into outbox.events (type, tenant, key, payload)
select 'order.created', case when %(tenants)s > 0 then 'tenant' || i %% greatest(%(tenants)s, 1) else '' end,
       'order-' || i %% 1000, json_build_object('id', i, 'note', repeat('x', 400))::text
from generate_series(1, %(events)s) i
"""


def run(bench: Bench) -> Iterator[Result]:
    """Measure few events, many, and as many of several tenants, in turn."""
    few, many = bench.sizes.deliveries, max(bench.sizes.deliveries, 3 * bench.sizes.backlog // 10)
    cases = {"few": (few, 0), "many": (many, 0), "tenants": (many, TENANTS)}
    rates: dict[str, list[float]] = {name: [] for name in cases}
    with receiver() as counting:
        for _ in range(bench.sizes.rounds):
            for name, (events, tenants) in cases.items():
                rates[name].append(_rate(bench, counting, events, tenants))
                bench.say(f"pending: {name} {rates[name][-1]:,.0f}/s")
    fresh = median(rates["few"])
    for name, what, bar in (("many", "", BAR), ("tenants", f" of {TENANTS} tenants", None)):
        ratio = median(rates[name]) / fresh
        yield Result(
            f"throughput with {many:,} events pending{what} ÷ {few:,}",
            f"{ratio:.2f}",
            f"≥ {bar:.2f}" if bar else "",
            bar is None or ratio >= bar,
            f"{median(rates[name]):,.0f} of {fresh:,.0f}/s",
        )


def _rate(bench: Bench, counting: Receiver, events: int, tenants: int) -> float:
    """Return the deliveries a second of the first of so many events, of so many tenants."""
    with bench.server.outbox() as url, bench.connection(url) as connection:
        for number in range(max(1, tenants)):
            subscribe(url, [f"{counting.url}/{number}"], tenant=f"tenant{number}" if tenants else "")
        counting.reset()
        with relay(bench, url):
            connection.execute(_FILL, {"events": events, "tenants": tenants})
            wait_until(lambda: counting.count() >= bench.sizes.deliveries, DRAIN_SECONDS, f"{events:,} pending")
            report = counting.report()
    return report.count / (report.last - report.first)
