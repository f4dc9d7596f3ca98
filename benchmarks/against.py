"""Throughput of this checkout as a fraction of another's, such as the commit before: both in turn, in one run.

The other checkout has a .venv of its own; its own console script makes its database, subscribes and delivers, so that
its schema may be another one. The events, the receiver and the clock are those of `throughput`.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, BenchmarkError, Result, median
from benchmarks.children import outside_environment, receiver, relay
from benchmarks.events import record_many
from benchmarks.keys import PUBLIC
from benchmarks.throughput import Side, outbox, rate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.children import Receiver

__all__ = ["run"]

BAR = 0.97
CASES = [(1, 1), (1, 2), (10, 1)]  # fan-out, processes
_SEAL = "insert into outbox.sealing_keys (id, key) values (%s, %s) on conflict do nothing"


def run(bench: Bench, other: Path) -> Iterator[Result]:
    """Measure every case with this checkout and with the other one, in turn."""
    script = other / ".venv" / "bin" / "relay"
    if not os.access(script, os.X_OK):
        raise BenchmarkError(
            f"{other.name} has no .venv/bin/relay: make a .venv there and install it, pip install -e ."
        )
    sides = [
        Side("this", outbox, lambda bench, url, _, count: relay(bench, url, processes=count), record_many, "outbox"),
        _other(script),
    ]
    for fan_out, processes in CASES:
        with receiver() as counting:
            yield _case(bench, counting, sides, fan_out, processes, other.name)


def _case(bench: Bench, counting: Receiver, sides: list[Side], fan_out: int, processes: int, name: str) -> Result:
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    what = f"this ÷ {name}, http, fan-out {fan_out}, {processes} process{'es' * (processes > 1)}"
    for turn in range(bench.sizes.against_rounds):
        for side in sides if turn % 2 == 0 else reversed(sides):  # neither is always the first
            rates[side.name].append(rate(bench, side, counting, fan_out, processes))
            bench.say(f"{what}: {side.name} {rates[side.name][-1]:,.0f}/s")
    ours, theirs = (median(one) for one in rates.values())
    ratio = ours / theirs
    return Result(what, f"{ratio:.2f}", f"≥ {BAR:.2f}", ratio >= BAR, f"{ours:,.0f} of {theirs:,.0f}/s")


def _other(script: Path) -> Side:
    """Return the side whose every step is the other checkout's own."""

    @contextmanager
    def database(bench: Bench, counting: Receiver, fan_out: int) -> Iterator[str]:
        with bench.server.database() as url:
            _command(bench, script, url, "migrate")
            with bench.connection(url) as connection:
                connection.execute(_SEAL, (PUBLIC.id, PUBLIC.text))
            for number in range(fan_out):
                _command(bench, script, url, "subscriptions", "add", f"{counting.url}/{number}", "order.*")
            yield url

    return Side(
        "the other",
        database,
        lambda bench, url, _, count: relay(bench, url, processes=count, script=script),
        record_many,
        "outbox",
    )


def _command(bench: Bench, script: Path, url: str, *arguments: str) -> None:
    done = subprocess.run(
        [script, *arguments], env=outside_environment(bench, url), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"the other's relay {' '.join(arguments)}: {done.stderr.strip()}")
