"""Measure, and print the table: `python -m benchmarks [NAME …] [--quick]`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import (
    against,
    backlog,
    batches,
    capturing,
    claiming,
    declared,
    filters,
    footprint,
    hanging,
    history,
    idle,
    large_tenant,
    latency,
    limits,
    order,
    pending,
    proxied,
    record_cost,
    silence,
    silent_names,
    size,
    statistics,
    switching,
    throughput,
    transformation,
    turns,
    wide,
)
from benchmarks.bench import FULL, QUICK, Bench, BenchmarkError, Result, Sizes
from benchmarks.server import server
from benchmarks.table import configuration, markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BENCHMARKS: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "throughput": lambda bench: against.run(bench, bench.against) if bench.against else throughput.run(bench),
    "proxied": proxied.run,
    "transformation": transformation.run,
    "latency": latency.run,
    "order": order.run,
    "switching": switching.run,
    "batches": batches.run,
    "silence": silence.run,
    "idle": idle.run,
    "silent-names": silent_names.run,
    "hanging": hanging.run,
    "large-tenant": large_tenant.run,
    "record": record_cost.run,
    "catalogue": declared.run,
    "capture": capturing.run,
    "footprint": footprint.run,
    "filters": filters.run,
    "limits": limits.run,
    "claim": claiming.claim,
    "memory": backlog.memory,
    "pending": pending.run,
    "tenants": turns.tenants,
    "urgent": turns.urgent,
    "wide": wide.run,
    "removed": wide.removed,
    "history": history.run,
    "size": size.run,
    "statistics": statistics.run,
}


def main() -> None:
    """Run what was asked for, in order; the table goes to standard output, progress to standard error."""
    asked = parse_arguments()
    began, load = time.monotonic(), os.getloadavg()[0]
    with server() as running, tempfile.TemporaryDirectory(prefix="outbox-benchmarks-") as folder:
        bench = Bench(running, _sizes(asked), Path(folder), _say, asked.against)
        results, failed = _measure(bench, asked.names or list(BENCHMARKS))
        print(markdown(results))
        print(f"\n{configuration(bench)} · load before {load:.2f} · {time.monotonic() - began:.0f} s")
    if failed:
        sys.exit(f"no figure: {', '.join(failed)}")


def _measure(bench: Bench, names: Sequence[str]) -> tuple[list[Result], list[str]]:
    """Run benchmarks by name; return what they found, and which failed: such a one has no line in the table."""
    results, failed = [], []
    for name in names:
        try:
            for result in BENCHMARKS[name](bench):
                _say(f"  {result.what}: {result.figure} ({result.anchors})")
                results.append(result)
        except BenchmarkError as error:
            _say(f"{name}: {error}")
            failed.append(name)
        except Exception:  # noqa: BLE001 - hours of the others' figures stand in the table all the same
            _say(f"{name}: {traceback.format_exc()}")
            failed.append(name)
    return results, failed


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the relay as it runs by default. About ten minutes, or two with --quick.",
        epilog="OUTBOX_BENCH_DATABASE_URL names a server on this machine; else an embedded one is started, fsync on.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs, not to quote")
    parser.add_argument("--deliveries", type=int, help=f"of a round of throughput; default {FULL.deliveries}")
    parser.add_argument("--rounds", type=int, help=f"of throughput; default {FULL.rounds}")
    parser.add_argument("--backlog", type=int, help=f"rows of claim and memory; default {FULL.backlog}")
    parser.add_argument(
        "--against",
        type=lambda given: Path(given).resolve(),
        metavar="DIR",
        help="throughput: compare with this other checkout, by the relay in its own .venv, instead of the bare loop",
    )
    asked = parser.parse_args()
    unknown = set(asked.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    return asked


def _sizes(asked: argparse.Namespace) -> Sizes:
    given = {name: getattr(asked, name) for name in ("deliveries", "rounds", "backlog") if getattr(asked, name)}
    if asked.rounds:
        given["against_rounds"] = asked.rounds
    return replace(QUICK if asked.quick else FULL, **given)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
