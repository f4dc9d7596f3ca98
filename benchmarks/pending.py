"""Deliveries a second while many events are pending, of many tenants or types: each ÷ those of a round of few.

Events are recorded in one transaction while the relay runs, and no ANALYZE has seen them yet: so it is after a mass
change, or when a relay starts again that stood still. Each round has a fresh database; the clock runs from the first
delivery until as many have come as a round of few has events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.bench import Bench, Result, median, wait_until
from benchmarks.children import Receiver, receiver, relay
from benchmarks.events import subscribe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

BAR = 0.8
TENANTS = 20
KINDS = 1000  # in turn, so that no take has two events of a kind
DRAIN_SECONDS = 300
_FILL = """
insert into outbox.events (type, tenant, key, payload)
select 'order.' || case when %(types)s > 1 then 'created' || i %% %(types)s else 'created' end,
       case when %(tenants)s > 0 then 'tenant' || i %% greatest(%(tenants)s, 1) else '' end,
       'order-' || i %% 1000, json_build_object('id', i, 'note', repeat('x', 400))::text
from generate_series(1, %(events)s) i
"""


class _Case(NamedTuple):
    """What is pending. tenants: 0 is none. shared: one subscription gets the events of all tenants, not one of each."""

    events: int
    what: str
    bar: float | None = None
    tenants: int = 0
    types: int = 1
    shared: bool = False

    def owners(self) -> list[str]:
        """Return whose the subscriptions are."""
        return [""] if self.shared else [f"tenant{number}" for number in range(self.tenants)] or [""]


def run(bench: Bench) -> Iterator[Result]:
    """Measure few events, many, as many of several tenants, and few of which each is of another kind, in turn."""
    few, many = bench.sizes.deliveries, max(bench.sizes.deliveries, 3 * bench.sizes.backlog // 10)
    cases = (
        _Case(few, ""),
        _Case(many, "", BAR),
        _Case(many, f" of {TENANTS} tenants", tenants=TENANTS),
        _Case(few, f" of {KINDS:,} types", types=KINDS),
        _Case(few, f" of {KINDS:,} tenants", tenants=KINDS, shared=True),
    )
    rates: dict[_Case, list[float]] = {case: [] for case in cases}
    with receiver() as counting:
        for _ in range(bench.sizes.rounds):
            for case in cases:
                rates[case].append(_rate(bench, counting, case))
                bench.say(f"pending: {case.events:,}{case.what} {rates[case][-1]:,.0f}/s")
    fresh = median(rates[cases[0]])
    for case in cases[1:]:
        ratio = median(rates[case]) / fresh
        yield Result(
            f"throughput with {case.events:,} events pending{case.what} ÷ {few:,}",
            f"{ratio:.2f}",
            f"≥ {case.bar:.2f}" if case.bar else "",
            case.bar is None or ratio >= case.bar,
            f"{median(rates[case]):,.0f} of {fresh:,.0f}/s",
        )


def _rate(bench: Bench, counting: Receiver, case: _Case) -> float:
    """Return the deliveries a second of the first of so many events."""
    with bench.server.outbox() as url, bench.connection(url) as connection:
        for number, owner in enumerate(case.owners()):
            subscribe(url, [f"{counting.url}/{number}"], tenant=owner)
        if case.shared:
            connection.execute("update outbox.subscriptions set tenant = '*'")
        counting.reset()
        with relay(bench, url):
            connection.execute(_FILL, {"events": case.events, "tenants": case.tenants, "types": case.types})
            wait_until(lambda: counting.count() >= bench.sizes.deliveries, DRAIN_SECONDS, f"{case.events:,} pending")
            report = counting.report()
    return report.count / (report.last - report.first)
