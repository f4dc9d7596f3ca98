"""The process that evaluates, as the relay sees it.

It is started with nothing of ours: three pipes, and an environment in which no URL and no key can stand. It ends when
the pipe that it reads from ends, which the kernel closes in any death of the relay. Signals to a group or a terminal
do not reach it, or are ignored: the relay needs it until its own end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from relay.message.evaluator_process.frames import read_frame, write_frame

__all__ = ["COMMAND", "Child"]

COMMAND = ("-P", "-m", "relay.message.evaluator_process")
# How this interpreter was found, where that is said by the environment.
KEPT_VARIABLES = ("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Child:
    """One such process. Each method but `kill` may wait, and is called in a thread."""

    def __init__(self) -> None:
        """Start it. Raises OSError where it cannot be."""
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, *COMMAND],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a traceback could hold what an event says
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._process.poll() is None

    @property
    def ended_by(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode
        return f"with code {code}" if code is None or code >= 0 else f"by signal {-code}"

    def ask(self, request: bytes) -> bytes | None:
        """Return its answer; None where it ended before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = None
        with suppress(OSError):
            write_frame(self._process.stdin, request)
            answer = read_frame(self._process.stdout)
        if answer is None:
            self.kill()
            self._process.wait()
            self._close()
        return answer

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def end(self) -> None:
        """End it while nobody asks it anything."""
        self.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what could not be written is written again before closing
                if pipe is not None:
                    pipe.close()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path)}
