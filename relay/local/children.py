"""Child processes of the demo, `relay dev`, tests and benchmarks, each in a session of its own and always stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

from outbox.errors import OutboxError
from relay.local.child_guard import ChildGuard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Child", "ChildError", "LogReader"]

_STOP_SECONDS = 10


class ChildError(OutboxError):
    """A child process ended by itself; the message has the last line that it wrote."""


class Child:
    """A Python program as a child process.

    Its standard output goes to `output`, its errors to `complaints`, by default the same path with the suffix .err.
    `environment` is all it gets. Ctrl-C in the terminal does not reach it, and a guard stops it when we are gone.
    """

    def __init__(
        self,
        name: str,
        program: Sequence[str],
        output: Path,
        environment: Mapping[str, str],
        *,
        complaints: Path | None = None,
    ) -> None:
        self.name = name
        self.output = output
        self.complaints = complaints or output.with_suffix(".err")
        for file in (self.output, self.complaints):
            file.write_bytes(b"")
        with (
            self.output.open("ab") as written,
            self.complaints.open("ab") as complained,
        ):  # appending: they may be one file
            self._process = self._start(program, environment, written, complained)
        self._guard = ChildGuard(self._process.pid, signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def text(self) -> str:
        """Everything it printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ended_well(self) -> bool:
        """Tell whether it has finished. Raises ChildError when it failed."""
        code = self._process.poll()
        if code:
            raise self._ended(code)
        return code == 0

    def must_run(self) -> None:
        """Raise ChildError unless it still runs."""
        code = self._process.poll()
        if code is not None:
            raise self._ended(code)

    def said(self, words: str) -> bool:
        """Tell whether these words are in what it wrote so far."""
        return any(
            words in file.read_text(encoding="utf-8", errors="replace") for file in (self.output, self.complaints)
        )

    def last_words(self) -> str:
        """Return the last line it wrote to standard error, or to its output."""
        for file in (self.complaints, self.output):
            lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
            written = [line.strip() for line in lines if line.strip()]
            if written:
                return written[-1]
        return "it said nothing"

    def wait(self, timeout_seconds: float) -> int:
        """Wait until it ends by itself; return its exit code, or minus the signal. Raises ChildError."""
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ChildError(f"the {self.name} still runs after {timeout_seconds:g} s: {self.last_words()}") from None
        self._let_go()
        return code

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._let_go()

    def stop(self, timeout_seconds: float = _STOP_SECONDS) -> int:
        """End its input, send SIGTERM, after so many seconds SIGKILL; return its exit code."""
        self._let_go()
        if self.alive:
            self._process.terminate()
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode

    def _start(
        self, program: Sequence[str], environment: Mapping[str, str], written: IO[bytes], complained: IO[bytes]
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603 - our own programs
            [sys.executable, "-P", *program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=complained,
            start_new_session=True,
            text=True,
        )

    def _ended(self, code: int) -> ChildError:
        return ChildError(f"the {self.name} ended by itself ({_ending(code)}): {self.last_words()}")

    def _let_go(self) -> None:
        """End its input, and dismiss the guard before the process id can belong to somebody else."""
        self._guard.dismiss()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


class LogReader:
    """Reads a growing log: each pass over it gives the complete lines that came since the last one."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("rb")
        self._rest = b""

    def __iter__(self) -> Iterator[str]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return iter([line.decode() for line in lines])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
