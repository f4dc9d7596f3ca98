"""What the hunts play on: a PostgreSQL of their own that keeps its promises, an application, a receiver, relays."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay.local import embedded
from relay.local.embedded import EmbeddedServer
from tests.support import databases
from tests.support.application import Application, staged
from tests.support.processes import ReceiverProcess, WriterProcess

ANSWER_AFTER_SECONDS = 0.02  # long enough that every kill meets requests in flight
SCHEDULE = [1] * 20


@dataclass
class Scene:
    """One hunt under way."""

    options: argparse.Namespace
    server: EmbeddedServer
    app: Application
    began: float

    @property
    def seconds_left(self) -> float:
        """How long the hunt may still take; raises TimeoutError when it is over."""
        left = self.began + self.options.at_most_seconds - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the hunt took longer than {self.options.at_most_seconds:g} s")
        return left

    def start_writer(self) -> WriterProcess:
        """Start the application, in transactions of five events, a tenth of them rolled back."""
        options = self.options
        rate = ("--events", options.events, "--per-second", options.per_second, "--batch", 5)
        return self.app.stage.writer(*rate, "--seed", options.seed)

    def start_keyed_writers(self, count: int, keys: int) -> list[WriterProcess]:
        """Start so many applications that share the events, the rate and the keys."""
        options = self.options
        rate = ("--events", options.events // count, "--per-second", options.per_second / count, "--batch", 5)
        return [
            self.app.stage.writer(*rate, "--keys", keys, "--seed", options.seed + number) for number in range(count)
        ]


@contextmanager
def scene(options: argparse.Namespace, *, ordered: bool = False) -> Iterator[Scene]:
    """Set everything up; afterwards nothing is left running."""
    directory = Path(tempfile.mkdtemp(prefix="outbox-chaos-"))
    logs = Path(tempfile.mkdtemp(prefix="outbox-chaos-logs-"))
    receiver = ReceiverProcess(logs)
    try:
        with (
            embedded.start(directory, settings={"fsync": "on"}) as server,
            databases.database(server.url()) as url,
        ):
            databases.migrate(url)
            with staged(logs, url, receiver) as app:
                app.timeout_seconds = 1  # leases of 7 s: what a kill leaves comes back while the hunt lasts
                app.subscribe("/hook", schedule_seconds=SCHEDULE, ordered=ordered)
                receiver.plan("/hook", f"{ANSWER_AFTER_SECONDS}:200")
                yield Scene(options, server, app, time.monotonic())
            print(f"logs: {logs}")
    finally:
        receiver.end()
        shutil.rmtree(directory, ignore_errors=True)


def conclude(scene: Scene, writers: Iterable[WriterProcess], facts: dict[str, object], broken: dict[str, bool]) -> int:
    """Print the verdict; return the exit code. `broken` names further conditions that failed."""
    for writer in writers:
        scene.app.take_over(writer)
    verdict = scene.app.reconcile()
    for name, value in {"seed": scene.options.seed, **facts}.items():
        print(f"{name:48}{value!s:>10}")
    print(verdict.table())
    failed = [name for name, failed in {**broken, "a dead letter": bool(verdict.dead)}.items() if failed]
    failed += [] if verdict.clean else ["the logs do not agree"]
    print("verdict: " + ("the promise held" if not failed else "; ".join(failed)))
    return 1 if failed else 0
