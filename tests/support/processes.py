"""The processes of an acceptance test, and the log of what was done to them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from outbox.signing.verify import new_secret
from relay.local.children import Child, ChildError
from tests.support import warm
from tests.support.constants import Constants
from tests.support.incidents import connected_ports, note
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
_TO_LOOPBACK = ["--allow-http", "--allow-networks", "127.0.0.0/8"]
GUARD = Path(__file__).parent / "guarded"  # see its sitecustomize.py
BREACH = "guard: "
CONSTANTS = "RELAY_TEST_CONSTANTS"
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file so far; none when it is not there yet."""
    written = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in written[: written.rfind("\n") + 1].splitlines()]


class Log:
    """A file of JSON Lines that grows: who asks again and again reads only what is new."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self._entries: list[dict[str, Any]] = []

    def entries(self) -> list[dict[str, Any]]:
        """The objects so far, as of `read_log`."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                written = file.read()
            whole = written[: written.rfind(b"\n") + 1]
            self._read += len(whole)
            self._entries += map(json.loads, whole.splitlines())
        return self._entries


class Process(Child):
    """A Python program of ours as a child process, which may connect to nothing that the policy does not allow.

    All that it prints goes to `output`.
    """

    def __init__(self, program: Sequence[str], output: Path, environment: Mapping[str, str] | None = None) -> None:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(GUARD), str(ROOT), kept.get("PYTHONPATH"))))
        super().__init__(" ".join(program[:2]), program, output, kept | dict(environment or {}), complaints=output)

    def wait(self, timeout_seconds: float = 30) -> int:
        """Wait for its end; return the exit code, or minus the signal."""
        try:
            return super().wait(timeout_seconds)
        except ChildError:
            raise AssertionError(f"still running after {timeout_seconds} s:\n{self.text}") from None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def has_pending(self, number: signal.Signals) -> bool:
        """Tell whether a signal was sent to it that it has not taken yet: the same one would be one with it."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii", "replace")
        return bool(int(status.partition("ShdPnd:")[2].split()[0], 16) >> (number - 1) & 1)

    def children(self) -> list[psutil.Process]:
        """Its living child processes."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
            return [child for child in found if child.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def end(self) -> None:
        """Make sure that it and its children are gone, whatever their state."""
        doomed = self.children()
        Child.kill(self)
        for child in doomed:
            with suppress(psutil.NoSuchProcess):
                child.kill()


class WarmProcess(Process):
    """One that is forked from a process with all of our modules, where that makes no difference."""

    def _start(self, program: Sequence[str], environment: Mapping[str, str], *output: Any) -> Any:
        start = warm.start if warm.suits(program, environment) else super()._start
        return start(program, environment, *output)


class ReceiverProcess(Process):
    """The verifying receiver; see tests/support/receiver.py for its log and its plans.

    It answers at the same address in `namespace` too, a network namespace, where one is named.
    """

    def __init__(self, directory: Path, namespace: str = "") -> None:
        self.log, self.secret = directory / "receiver.jsonl", new_secret()
        program = ["-m", "tests.support.receiver", str(self.log), self.secret, *filter(None, [namespace])]
        super().__init__(program, directory / "receiver.out")
        wait_until(lambda: self.text.endswith("\n") or not self.alive)
        self._base = f"http://127.0.0.1:{int(self.text)}"
        self._written = Log(self.log)

    def url(self, path: str) -> str:
        return self._base + path

    def begin(self, log: Path) -> None:
        """Forget plans and counts, and write to another log."""
        self._tell("/-/begin", {"log": str(log)})
        self.log, self._written = log, Log(log)

    def plan(self, path: str, *steps: str) -> None:
        """Say how `path` answers the first, second, … request of one event; the last step repeats."""
        self._tell("/-/plan", {"path": path, "plan": steps})

    def release(self, status: int = 200, *, request: int | None = None, path: str | None = None) -> None:
        """Answer what is held: one request, those of one path, or all."""
        self._tell("/-/release", {"status": status, "request": request, "path": path})

    def received(self, path: str | None = None) -> list[dict[str, Any]]:
        """The requests so far, in order."""
        return [e for e in self._written.entries() if e["what"] == "received" and path in (None, e["path"])]

    def wait_for(self, count: int, path: str | None = None, timeout_seconds: float = 30) -> list[dict[str, Any]]:
        """Wait until so many requests came, and return them."""

        def enough() -> bool:
            return len(self.received(path)) >= count

        wait_until(enough, timeout_seconds=timeout_seconds, message=f"fewer than {count} requests came to {path}")
        return self.received(path)

    def _tell(self, command: str, facts: dict[str, Any]) -> None:
        httpx.post(self._base + command, json=facts, timeout=10, verify=False, trust_env=False).raise_for_status()


class WriterProcess(WarmProcess):
    """The application; see tests/support/writer.py for its log."""

    def __init__(
        self, directory: Path, database_url: str, *options: object, environment: Mapping[str, str] | None = None
    ) -> None:
        name = f"writer-{len(list(directory.glob('writer*.out')))}"
        self.log = directory / f"{name}.jsonl"
        program = ["-m", "tests.support.writer", str(self.log), *map(str, options)]
        variables = {"WRITER_DATABASE_URL": database_url} | dict(environment or {})
        self._written = Log(self.log)
        super().__init__(program, directory / f"{name}.out", variables)

    def committed(self) -> int:
        """How many events are committed so far."""
        return sum(len(entry["events"]) for entry in self._written.entries() if entry["what"] == "committed")

    def finish(self, timeout_seconds: float = 60) -> None:
        """Wait for its last transaction."""
        assert self.wait(timeout_seconds) == 0, self.text


class RelayProcess(WarmProcess):
    """`relay run` as users start it, or with a trap of tests/support/crashing.py."""

    def __init__(
        self,
        incidents: Path,
        output: Path,
        database_url: str,
        *options: str,
        trap: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._incidents = incidents
        start = ["-m", "tests.support.crashing", trap, str(incidents)] if trap else ["-m", "relay"]
        program = [*start, "run", *_TO_LOOPBACK, *options]
        super().__init__(program, output, {"RELAY_DATABASE_URL": database_url} | dict(environment or {}))

    def wait_running(self, processes: int = 1) -> None:
        """Wait until it says that it runs."""

        def running() -> bool:
            assert self.alive, f"the relay ended by itself:\n{self.text}"
            return self.text.count(" running, process ") >= processes

        wait_until(running, timeout_seconds=30)

    def kill(self) -> None:
        """SIGKILL, noted as an incident just before and gone for certain after; a parent's children are not its own."""
        self.note("killed")
        super().kill()

    def note(self, what: str, **facts: object) -> None:
        """Note an incident that explains duplicates."""
        note(self._incidents, what, process=self.pid, **facts)

    def wait_stopped(self) -> None:
        """Wait until its trap has stopped it: a SIGCONT that comes before the SIGSTOP is lost."""
        wait_until(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    def suspend(self) -> None:
        """SIGSTOP, noted as an incident just after: its connections are known for certain by then."""
        self.signal(signal.SIGSTOP)
        self.note("stopped", ports=connected_ports(self.pid))

    def stop(self, timeout_seconds: float = 40) -> int:
        """SIGTERM, and wait; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_seconds)


@dataclass
class Stage:
    """What a test starts; everything it started is gone when it ends."""

    directory: Path
    database_url: str
    started: list[Process] = field(default_factory=list)
    constants: Constants = field(default_factory=dict)  # of the relays that start from now on
    environment: dict[str, str] = field(default_factory=dict)  # of these too
    cut_off: dict[str, str] = field(default_factory=dict)  # more of those that a trap stops
    relays_url: str = ""  # where relays log in; default as everybody

    @property
    def incidents(self) -> Path:
        """The log of kills and outages, JSON Lines."""
        return self.directory / "incidents.jsonl"

    def relay(
        self, *options: str, trap: str = "", database_url: str = "", environment: Mapping[str, str] | None = None
    ) -> RelayProcess:
        """Start a relay and do not wait for it."""
        output = self.directory / f"relay-{len(self.started)}.log"
        environment = self.environment | dict(environment or {}) | self._shortened()
        if trap.startswith("stop:"):
            environment |= self.cut_off
        relay = RelayProcess(
            self.incidents,
            output,
            database_url or self.relays_url or self.database_url,
            *options,
            trap=trap,
            environment=environment,
        )
        self.started.append(relay)
        return relay

    def _shortened(self) -> dict[str, str]:
        return {CONSTANTS: json.dumps(self.constants)} if self.constants else {}

    def running_relay(self, *options: str, processes: int = 1) -> RelayProcess:
        """Start a relay and wait until it runs."""
        relay = self.relay(*options)
        relay.wait_running(processes)
        return relay

    def drain(self, *options: str) -> RelayProcess:
        """Run a relay until nothing is left to do, which must end well."""
        relay = self.relay("--until-drained", *options)
        assert relay.wait(60) == 0, relay.text
        return relay

    def writer(self, *options: object) -> WriterProcess:
        """Start an application."""
        writer = WriterProcess(self.directory, self.database_url, *options)
        self.started.append(writer)
        return writer

    def close(self) -> None:
        """End everything, the last started first."""
        for process in reversed(self.started):
            process.end()
        breaches = [line for process in self.started for line in process.text.splitlines() if line.startswith(BREACH)]
        assert not breaches, breaches
