"""The processes that are measured, started as a user would start them, and stopped by their id."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, BenchmarkError, wait_until
from benchmarks.keys import PRIVATE
from relay.local.children import Child, ChildError, LogReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "START_SECONDS",
    "STOP_SECONDS",
    "Program",
    "Receiver",
    "Relay",
    "bare_loop",
    "certified",
    "outside_environment",
    "program",
    "receiver",
    "relay",
]

ROOT = Path(__file__).parent.parent
START_SECONDS = 30
STOP_SECONDS = 30
_EXEC = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"


@dataclass
class Report:
    """What the receiver saw: `first` and `last` in Unix seconds, `arrivals` on the monotonic clock in nanoseconds."""

    count: int
    first: float
    last: float
    arrivals: dict[str, int]


class Program(Child):
    """One of our modules as a child process that answers in lines."""

    def __init__(self, module: Sequence[str], output: Path, environment: dict[str, str]) -> None:
        super().__init__(module[0], ["-m", *module], output, _inherited() | environment)
        self._reader = LogReader(output)
        self._lines: list[str] = []

    def next_line(self, seconds: float = START_SECONDS) -> str:
        """Wait for the next line that it prints."""

        def came() -> bool:
            ended = not self.alive
            self._lines += self._reader
            if ended and not self._lines:
                raise BenchmarkError(f"{self.name} ended by itself: {self.last_words()}")
            return bool(self._lines)

        wait_until(came, seconds, f"a line of {self.name}")
        return self._lines.pop(0)

    def __exit__(self, *_: object) -> None:
        self.stop(STOP_SECONDS)
        self._reader.__exit__()


class Receiver:
    """The counting receiver, in a process of its own."""

    def __init__(self, process: Program, scheme: str) -> None:
        self._process = process
        self.url = f"{scheme}://127.0.0.1:{int(process.next_line())}/hook"

    def reset(self) -> None:
        self._process.tell("reset")

    def hang_up(self) -> None:
        """Close every connection to it."""
        self._process.tell("hang up")

    def count(self) -> int:
        """Return how many requests came, which costs less than a report with many arrivals."""
        self._process.tell("count")
        return int(self._process.next_line())

    def report(self) -> Report:
        self._process.tell("report")
        return Report(**json.loads(self._process.next_line()))


@contextlib.contextmanager
def receiver(*options: str, scheme: str = "http") -> Iterator[Receiver]:
    """Start a receiver; see `benchmarks.receiver` for its options."""
    with program(["benchmarks.receiver", *options]) as process:
        yield Receiver(process, scheme)


@contextlib.contextmanager
def program(module: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[Program]:
    """Run one of our modules as a child process and end it with the block."""
    with (
        tempfile.TemporaryDirectory(prefix="outbox-benchmark-child-") as folder,
        Program(module, Path(folder) / "output", environment or {}) as process,
    ):
        yield process


@dataclass
class Relay:
    """A running `relay run`; `pids` are the processes that deliver."""

    process: Child
    pids: list[int] = field(default_factory=list)

    def peak_bytes(self) -> int:
        """Return the most memory any one of its processes ever held."""
        return max(self._memory("VmHWM"))

    def resident_bytes(self) -> int:
        """Return the most memory any one of its processes holds now."""
        return max(self._memory("VmRSS"))

    def _memory(self, name: str) -> list[int]:
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in self.pids]
        return [int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 for status in statuses]

    def stop(self) -> None:
        """Send SIGTERM and wait: everything is settled or given back."""
        self.process.stop(STOP_SECONDS)


@contextlib.contextmanager
def relay(
    bench: Bench,
    database_url: str,
    *options: str,
    processes: int = 1,
    module: Sequence[str] = ("relay",),
    script: Path | None = None,
) -> Iterator[Relay]:
    """Run the console script with default settings and wait until its processes look for work.

    `script` is that of another checkout, which is run with its own interpreter and packages.
    """
    environment = outside_environment(bench, database_url) | ({} if script else {"PYTHONPATH": str(ROOT)})
    log = bench.folder / f"relay-{os.urandom(4).hex()}.log"
    program = ["-c", _EXEC, str(script)] if script else ["-m", *module]
    asked = [*program, "run", "--processes", str(processes), *options]
    running = Relay(Child("relay", asked, log, environment, complaints=log))

    def ready() -> bool:
        running.process.must_run()
        running.pids = [int(pid) for pid in re.findall(r"running, process (\d+)", running.process.text)]
        return len(running.pids) == processes

    try:
        wait_until(ready, START_SECONDS, "the relay's start")
        yield running
    except (BenchmarkError, ChildError) as error:
        raise BenchmarkError(f"{error}; the relay's last words: {running.process.last_words()}") from error
    finally:
        running.stop()


@contextlib.contextmanager
def bare_loop(bench: Bench, database_url: str, endpoint_url: str, processes: int) -> Iterator[None]:
    """Run the bare loop and wait until each process's connections are open."""
    environment = {"SSL_CERT_FILE": str(bench.folder / "authority.pem")}
    module = ["benchmarks.bare", database_url, endpoint_url]
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(program(module, environment)) for _ in range(processes)]
        for child in children:
            if child.next_line() != "ready":
                raise BenchmarkError(f"the bare loop did not start: {child.last_words()}")
        yield


def certified(folder: Path) -> str:
    """Make an authority (authority.pem) and a certificate of 127.0.0.1 (its path is returned)."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    certificate = folder / "receiver.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    return str(certificate)


def outside_environment(bench: Bench, database_url: str) -> dict[str, str]:
    """Return the environment of a relay that is measured; its modules are those of its own installation."""
    return _without_settings() | {
        "RELAY_DATABASE_URL": database_url,
        "RELAY_ALLOW_NETWORKS": "127.0.0.0/8",
        "RELAY_ALLOW_HTTP": "true",
        "RELAY_SECRET_KEY": PRIVATE.reveal(),
        "SSL_CERT_FILE": str(bench.folder / "authority.pem"),
    }


def _inherited() -> dict[str, str]:
    """Return this session's environment without settings of a relay, and with our modules."""
    return _without_settings() | {"PYTHONPATH": str(ROOT)}


def _without_settings() -> dict[str, str]:
    left_out = ("RELAY_", "OUTBOX_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
