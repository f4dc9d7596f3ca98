"""Child processes of the demo and of `relay dev`: in sessions of their own, always stopped, by their id."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

from outbox.errors import OutboxError
from relay.local.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Child", "ChildError", "LogReader"]

_STOP_SECONDS = 10


class ChildError(OutboxError):
    """A child process ended by itself; the message has its last words."""


class Child:
    """A Python program as a child process. Its output goes to `log`, its complaints to `log` as .err.

    `environment` is all it gets. Ctrl-C in the terminal does not reach it, and a guard stops it when we are gone.
    """

    def __init__(self, name: str, program: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.complaints = log.with_suffix(".err")
        with log.open("wb") as output, self.complaints.open("wb") as complaints:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                [sys.executable, "-P", *program],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=complaints,
                start_new_session=True,
                text=True,
            )
        self._guard = Guard(self._process.pid, signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ended_well(self) -> bool:
        """Whether it has finished. Raises ChildError when it failed."""
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
        """Whether these words are in what it wrote so far."""
        return any(words in file.read_text(encoding="utf-8", errors="replace") for file in (self.log, self.complaints))

    def last_words(self) -> str:
        """Return the last line it wrote to standard error, or to its log."""
        for file in (self.complaints, self.log):
            lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
            written = [line.strip() for line in lines if line.strip()]
            if written:
                return written[-1]
        return "it said nothing"

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._let_go()

    def stop(self) -> int:
        """End its input, send SIGTERM, after a while SIGKILL; return its exit code."""
        self._let_go()
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode

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
