"""Start the processes of `relay run --processes N` and restart those that die; the parent touches no data.

Each child holds the reading end of a pipe; only the parent has the writing end. When the parent dies in any way, the
kernel closes that end, and the children stop.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["is_child", "parent_pipe", "supervise"]

log = logging.getLogger("relay.process.supervisor")

_PIPE = "OUTBOX_RELAY_PARENT_PIPE"
RESTART_PAUSE_SECONDS = 0.2
RESTART_PAUSE_MAX_SECONDS = 5.0
STABLE_AFTER_SECONDS = 10.0  # after a life of this length, a child's pauses are short again
FINAL_EXIT_CODES = (0, 2)  # drained or stopped; or it refused its configuration or the schema


def is_child() -> bool:
    """Tell whether `supervise` started this process."""
    return _PIPE in os.environ


def parent_pipe() -> int:
    """Return the file descriptor that becomes readable when the parent process is gone."""
    return int(os.environ[_PIPE])


def supervise(processes: int) -> int:
    """Run this same command in `processes` children until a signal; return the worst of their exit codes."""
    return _Supervisor(processes).run()


class _Child:
    """One child process, which may be restarted, and how often it died quickly."""

    def __init__(self, number: int, reading_end: int) -> None:
        self.number = number
        self._reading_end = reading_end
        self._quick_deaths = 0
        self.start()

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.restart_at: float | None = None
        self.process = subprocess.Popen(  # noqa: S603 - our own command again
            [sys.executable, "-m", "relay", *sys.argv[1:]],
            env=os.environ | {_PIPE: str(self._reading_end)},
            pass_fds=[self._reading_end],
            start_new_session=True,
        )

    def plan_restart(self) -> float:
        """Decide when to start again, later after each quick death; return the pause in seconds."""
        lived = time.monotonic() - self.started_at
        self._quick_deaths = 0 if lived > STABLE_AFTER_SECONDS else self._quick_deaths + 1
        pause = min(RESTART_PAUSE_SECONDS * 2.0 ** max(0, self._quick_deaths - 3), RESTART_PAUSE_MAX_SECONDS)
        self.restart_at = time.monotonic() + pause
        return pause


class _Supervisor:
    def __init__(self, processes: int) -> None:
        self._signals = 0
        reading_end, self._writing_end = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._children = [_Child(number, reading_end) for number in range(1, processes + 1)]

    def run(self) -> int:
        worst = 0
        while self._children:
            for child in self._children[:]:
                code = self._check(child)
                if code is not None:
                    worst = max(worst, abs(code))
                    self._children.remove(child)
            time.sleep(0.05)
        return worst

    def _check(self, child: _Child) -> int | None:
        """Restart a dead child when its pause is over; return the exit code of one that is not restarted."""
        if child.restart_at is not None:
            if self._signals:
                return 0
            if time.monotonic() >= child.restart_at:
                child.start()
            return None
        code = child.process.poll()
        if code is None:
            return None
        if self._signals or code in FINAL_EXIT_CODES:
            return code
        pause = child.plan_restart()
        log.warning("process %d ended with %d; starting it again in %.1f s", child.process.pid, code, pause)
        return None

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        for child in self._children:
            if child.process.poll() is None:
                child.process.send_signal(number)
