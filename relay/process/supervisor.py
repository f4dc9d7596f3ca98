"""Start the processes of `relay run --processes N` and restart those that die; the parent touches no data.

Each child holds the reading end of a pipe; only the parent has the writing end. When the parent dies in any way, the
kernel closes that end, and the children stop. Through a second pipe a child tells that its checks at the start passed.
A child that refuses its configuration or the schema (exit code 2) is started again: the cause came since the parent
checked, and somebody will mend it. Only if every child refuses it and none ever got ready, the parent ends with 2.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid4

from relay.process.monitoring import answer_for_children

if TYPE_CHECKING:
    from types import FrameType

    from relay.config.options import Config

__all__ = ["Place", "is_child", "note_ready", "parent_pipe", "place", "supervise"]

log = logging.getLogger("relay.process.supervisor")

_PIPE = "OUTBOX_RELAY_PARENT_PIPE"
_READY_PIPE = "OUTBOX_RELAY_READY_PIPE"
_PLACE = "OUTBOX_RELAY_PLACE"
RESTART_PAUSE_SECONDS = 0.2
RESTART_PAUSE_MAX_SECONDS = 5.0
REFUSED_PAUSE_MAX_SECONDS = 30.0
STABLE_AFTER_SECONDS = 10.0  # after a life of this length, a child's pauses are short again
REFUSED = 2  # the exit code of a child that refused its configuration or the schema


class Place(NamedTuple):
    """Which process of which `relay run` this is: a child that is started again keeps the place of the one before."""

    run_id: UUID
    id: UUID


def place() -> Place:
    """Return the place that the parent gave to this process, or one of its own."""
    given = os.environ.get(_PLACE)
    return Place(*map(UUID, given.split(":"))) if given else Place(uuid4(), uuid4())


def is_child() -> bool:
    """Tell whether `supervise` started this process."""
    return _PIPE in os.environ


def parent_pipe() -> int:
    """Return the file descriptor that becomes readable when the parent process is gone."""
    return int(os.environ[_PIPE])


def note_ready() -> None:
    """Tell the parent, if there is one, that the checks at the start passed."""
    if is_child():
        os.write(int(os.environ[_READY_PIPE]), os.getpid().to_bytes(4, "big"))


def supervise(config: Config) -> int:
    """Run this same command in `processes` children until a signal; return the worst of their exit codes.

    Where health and metrics are asked for, the parent answers for its children.
    """
    family = _Family()
    with answer_for_children(config, family.is_alive, lambda: family.restarts):
        return _Supervisor(config.processes, family).run()


class _Family:
    """What the thread that answers for the children sees of them."""

    def __init__(self) -> None:
        self.children: list[_Child] = []
        self.restarts = 0

    def is_alive(self) -> bool:
        """Tell whether a child runs, or is about to: only where all have ended nobody delivers any more."""
        return any(child.restart_at is None for child in list(self.children))


class _Child:
    """One place for a child process, which may be started again, and how often it died quickly."""

    def __init__(self, place: Place, reading_end: int, ready_end: int) -> None:
        self._place = place
        self._pipes = (reading_end, ready_end)
        self._quick_deaths = 0
        self.failing: int | None = None  # the exit code that the log told last, while it has not got ready again
        self.refused = False
        self.start()

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.restart_at: float | None = None
        reading_end, ready_end = self._pipes
        environment = {_PIPE: str(reading_end), _READY_PIPE: str(ready_end), _PLACE: ":".join(map(str, self._place))}
        # Where modules are looked for is the parent's: the folder that it stands in may have another `relay`.
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        self.process = subprocess.Popen(  # noqa: S603 - our own command again
            [sys.executable, "-P", "-m", "relay", *sys.argv[1:]],
            env=os.environ | environment,
            pass_fds=self._pipes,
            start_new_session=True,
        )

    def plan_restart(self, code: int) -> float:
        """Decide when to start again, later after each quick death; return the pause in seconds."""
        lived = time.monotonic() - self.started_at
        self._quick_deaths = 0 if lived > STABLE_AFTER_SECONDS and code != REFUSED else self._quick_deaths + 1
        longest = REFUSED_PAUSE_MAX_SECONDS if code == REFUSED else RESTART_PAUSE_MAX_SECONDS
        pause = min(RESTART_PAUSE_SECONDS * 2.0 ** min(max(0, self._quick_deaths - 3), 16), longest)
        self.restart_at = time.monotonic() + pause
        return pause

    def note_ready(self) -> None:
        """Say that it runs again, if the log said that it did not."""
        if self.failing is not None:
            log.warning("process %d runs again, in the place of one that ended with %d", self.process.pid, self.failing)
            self.failing = None


class _Supervisor:
    def __init__(self, processes: int, family: _Family) -> None:
        self._signals = 0
        self._family = family
        self._any_ready = self._any_drained = False
        reading_end, self._writing_end = os.pipe()
        self._ready, ready_end = os.pipe()
        os.set_blocking(self._ready, False)
        self._children = family.children
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        run_id = uuid4()
        self._children += [_Child(Place(run_id, uuid4()), reading_end, ready_end) for _ in range(processes)]
        if self._signals:  # it came while they were started
            self._stop_children()

    def run(self) -> int:
        worst = 0
        while self._children:
            for child in self._children[:]:
                code = self._check(child)
                if code is not None:
                    code = 0 if self._signals and code == -signal.SIGTERM else code  # stopped while it started
                    worst = max(worst, abs(code))
                    self._any_drained |= code == 0
                    self._children.remove(child)
            time.sleep(0.05)
        return worst

    def _check(self, child: _Child) -> int | None:
        """Restart a dead child when its pause is over; return the exit code of one that is not restarted."""
        if child.restart_at is not None:
            if self._signals or self._is_hopeless():
                return 0 if self._signals else REFUSED
            if time.monotonic() >= child.restart_at:
                self._start_again(child)
            return None
        code = child.process.poll()
        self._hear()  # after the poll: what a child wrote before its end is heard before that is judged
        if code is None:
            return None
        if self._is_final(child, code):
            return code
        self._start_later(child, code)
        return None

    def _start_again(self, child: _Child) -> None:
        child.start()
        self._family.restarts += 1
        if self._signals:  # it came meanwhile
            self._stop_children()

    def _hear(self) -> None:
        """Read which children passed their checks."""
        try:
            heard = os.read(self._ready, 4096)
        except BlockingIOError:
            return
        self._any_ready = True
        pids = {int.from_bytes(heard[at : at + 4], "big") for at in range(0, len(heard), 4)}
        for child in self._children:
            if child.process.pid in pids:
                child.note_ready()

    def _is_final(self, child: _Child, code: int) -> bool:
        """Tell whether a child that ended so is not started again; 0: it drained, or was stopped."""
        if code != REFUSED or self._signals:
            return bool(self._signals) or code == 0
        child.refused = True
        return self._any_drained or self._is_hopeless()

    def _is_hopeless(self) -> bool:
        """Tell whether every child was refused, and none ever got ready."""
        return not self._any_ready and all(child.refused for child in self._children)

    def _start_later(self, child: _Child, code: int) -> None:
        """Plan the restart and log it; of a child that is refused again and again, only the first time."""
        pause = child.plan_restart(code)
        if code != REFUSED:
            log.warning("process %d ended with %d; starting it again in %.1f s", child.process.pid, code, pause)
        elif child.failing != code:
            log.error(
                "process %d refused its configuration or the schema (exit code 2, its reason is above); until that is"
                " mended there is one process less, and it is started again in pauses of up to %d s",
                child.process.pid,
                REFUSED_PAUSE_MAX_SECONDS,
            )
        child.failing = code

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._stop_children()

    def _stop_children(self) -> None:
        """Stop them by the signal that ends a process without a traceback where it does not listen yet."""
        for child in self._children:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
