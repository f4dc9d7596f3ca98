"""What a benchmark is given, and what it gives back."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.server import Server

__all__ = ["FULL", "QUICK", "Bench", "BenchmarkError", "Result", "Sizes", "median", "percentile", "wait_until"]


class BenchmarkError(Exception):
    """A run went wrong, so that it has no figure: something was lost, late, or did not start."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured. Seconds, counts and rates an hour's noise on a small machine asks for."""

    deliveries: int = 40_000
    rounds: int = 3
    against_rounds: int = 5
    latency_seconds: Mapping[int, float] = field(default_factory=lambda: {1: 60, 50: 20, 200: 15, 1000: 10})
    silent_events: int = 25
    silent_names_seconds: float = 60.0
    hanging_seconds: float = 60.0
    record_seconds: float = 1.0
    record_rounds: int = 11
    limit_seconds: float = 60.0
    backlog: int = 1_000_000
    snapshot_seconds: float = 600.0
    turns: int = 30
    claims: int = 50
    idle_seconds: float = 20.0
    idle_relays: Sequence[int] = (1, 4, 16, 32)

    def shown(self) -> str:
        """Return the sizes for the table's last line."""
        return f"{self.deliveries:,} deliveries a round, {self.rounds} rounds, backlog {self.backlog:,}"


FULL = Sizes()
QUICK = Sizes(
    deliveries=4_000,
    rounds=1,
    against_rounds=1,
    latency_seconds={1: 5, 50: 4, 200: 4, 1000: 3},
    silent_events=5,
    silent_names_seconds=15.0,
    hanging_seconds=10.0,
    record_seconds=0.5,
    record_rounds=2,
    limit_seconds=6.0,
    backlog=100_000,
    snapshot_seconds=10.0,
    turns=10,
    claims=20,
    idle_seconds=5.0,
    idle_relays=(1, 4),
)


@dataclass(frozen=True)
class Result:
    """One line of the table. `anchors` are absolute figures: they hold for the machine that made them."""

    what: str
    figure: str
    bar: str = ""
    met: bool = True
    anchors: str = ""


@dataclass(frozen=True)
class Bench:
    """What every benchmark is given: the server, the sizes, and a folder for certificates and logs.

    `against` is another checkout, which throughput is compared with.
    """

    server: Server
    sizes: Sizes
    folder: Path
    say: Callable[[str], None]
    against: Path | None = None

    @contextmanager
    def connection(self, url: str) -> Iterator[psycopg.Connection[Any]]:
        """Yield an autocommit connection whose statements are not mistaken for the relay's."""
        with psycopg.connect(url, autocommit=True, application_name="outbox-benchmarks") as connection:
            yield connection


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until `condition` holds; raise BenchmarkError naming `what` after so many seconds."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise BenchmarkError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
