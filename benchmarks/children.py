"""The processes that are measured, started as a user would start them, and stopped by their id."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, BenchmarkError, wait_until
from benchmarks.keys import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Receiver", "Relay", "bare_loop", "certified", "program", "receiver", "relay"]

ROOT = Path(__file__).parent.parent
START_SECONDS = 30
STOP_SECONDS = 30


@dataclass
class Report:
    """What the receiver saw: `first` and `last` in Unix seconds, `arrivals` on the monotonic clock in nanoseconds."""

    count: int
    first: float
    last: float
    arrivals: dict[str, int]


class Receiver:
    """The counting receiver, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], scheme: str) -> None:
        self._process = process
        self.url = f"{scheme}://127.0.0.1:{int(process.stdout.readline())}/hook"

    def reset(self) -> None:
        self._tell("reset")

    def hang_up(self) -> None:
        """Close every connection to it."""
        self._tell("hang up")

    def report(self) -> Report:
        self._tell("report")
        return Report(**json.loads(self._process.stdout.readline()))

    def _tell(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def receiver(*options: str, scheme: str = "http") -> Iterator[Receiver]:
    """Start a receiver; see `benchmarks.receiver` for its options."""
    with program(["benchmarks.receiver", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Receiver(process, scheme)


@contextlib.contextmanager
def program(
    module: Sequence[str], environment: dict[str, str] | None = None, **streams: int
) -> Iterator[subprocess.Popen[str]]:
    """Run one of our modules as a child process and end it with the block."""
    with _child([sys.executable, "-m", *module], environment or {}, **streams) as process:
        yield process


@dataclass
class Relay:
    """A running `relay run`; `pids` are the processes that deliver."""

    process: subprocess.Popen[str]
    log: Path
    pids: list[int] = field(default_factory=list)

    def peak_bytes(self) -> int:
        """Return the most memory any one of its processes ever held."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in self.pids]
        return max(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) for status in statuses) * 1024

    def stop(self) -> None:
        """Send SIGTERM and wait: everything is settled or given back."""
        _stop(self.process)


@contextlib.contextmanager
def relay(
    bench: Bench, database_url: str, *options: str, processes: int = 1, command: Sequence[str] = ()
) -> Iterator[Relay]:
    """Run the console script with default settings and wait until its processes look for work."""
    script = command or [str(Path(sys.executable).with_name("relay"))]
    environment = {
        "RELAY_DATABASE_URL": database_url,
        "RELAY_ALLOW_NETWORKS": "127.0.0.0/8",
        "RELAY_ALLOW_HTTP": "true",
        "RELAY_SECRET_KEY": PRIVATE.reveal(),
        "SSL_CERT_FILE": str(bench.folder / "authority.pem"),
    }
    log = bench.folder / f"relay-{os.urandom(4).hex()}.log"
    asked = [*script, "run", "--processes", str(processes), *options]
    with log.open("wb") as stream, _child(asked, environment, stdout=stream, stderr=stream) as process:
        running = Relay(process, log)

        def ready() -> bool:
            if process.poll() is not None:
                raise BenchmarkError(f"the relay ended by itself: {_last_line(log)}")
            running.pids = [int(pid) for pid in re.findall(r"running, process (\d+)", log.read_text())]
            return len(running.pids) == processes

        wait_until(ready, START_SECONDS, "the relay's start")
        try:
            yield running
        except BenchmarkError as error:
            raise BenchmarkError(f"{error}; the relay's last words: {_last_line(log)}") from error


@contextlib.contextmanager
def bare_loop(bench: Bench, database_url: str, endpoint_url: str, processes: int) -> Iterator[None]:
    """Run the bare loop and wait until each process's connections are open."""
    environment = {"SSL_CERT_FILE": str(bench.folder / "authority.pem")}
    module = ["benchmarks.bare", database_url, endpoint_url]
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(program(module, environment, stdout=subprocess.PIPE)) for _ in range(processes)]
        for child in children:
            if child.stdout.readline() != "ready\n":
                raise BenchmarkError("the bare loop did not start; its error is above")
        yield


def certified(folder: Path) -> str:
    """Make an authority (authority.pem) and a certificate of 127.0.0.1 (its path is returned)."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    certificate = folder / "receiver.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    return str(certificate)


@contextlib.contextmanager
def _child(command: Sequence[str], environment: dict[str, str], **streams: object) -> Iterator[subprocess.Popen[str]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "OUTBOX_"))}
    process = subprocess.Popen(command, cwd=ROOT, env=inherited | environment, text=True, **streams)
    try:
        yield process
    finally:
        _stop(process)


def _last_line(log: Path) -> str:
    return (log.read_text().strip().splitlines() or ["none"])[-1]


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
