"""Deliveries a second through an egress proxy, as a fraction of those without one in the same run.

The clock is that of `throughput`. The proxy is `benchmarks.proxy`, a process of its own on the same cores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import Bench, Result, median
from benchmarks.children import program, receiver, relay
from benchmarks.events import record_many
from benchmarks.throughput import Side, outbox, rate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

SCHEMES = ("http", "socks5")


def run(bench: Bench) -> Iterator[Result]:
    """Measure each kind of proxy, with it and without it in turn."""
    for scheme in SCHEMES:
        with receiver() as counting, program(["benchmarks.proxy", scheme]) as proxy:
            url = f"{scheme}://127.0.0.1:{int(proxy.next_line())}"
            sides = [_side("direct"), _side("proxied", "--egress-proxy", url)]
            rates: dict[str, list[float]] = {side.name: [] for side in sides}
            for _ in range(bench.sizes.rounds):
                for side in sides:
                    rates[side.name].append(rate(bench, side, counting, fan_out=1, processes=1))
                    bench.say(f"{scheme} proxy: {side.name} {rates[side.name][-1]:,.0f}/s")
        direct, proxied = median(rates["direct"]), median(rates["proxied"])
        what = f"through a proxy ÷ directly, {'CONNECT' if scheme == 'http' else 'SOCKS5'}"
        yield Result(what, f"{proxied / direct:.2f}", anchors=f"{proxied:,.0f} of {direct:,.0f}/s")


def _side(name: str, *options: str) -> Side:
    return Side(
        name, outbox, lambda bench, url, _, count: relay(bench, url, *options, processes=count), record_many, "outbox"
    )
