"""A guard for a child process, so that it never outlives us, not even a `kill -9` of this process."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal

__all__ = ["ChildGuard"]

_SCRIPT = 'cat >/dev/null; kill -s "$1" "$2"'


class ChildGuard:
    """A process that waits on a pipe which only we hold open, and sends `number` to the process `pid` when it closes.

    Dismiss it before `pid` is waited for, or soon after: a process id can belong to somebody else later.
    """

    def __init__(self, pid: int, number: signal.Signals) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the shell and our own script
            ["/bin/sh", "-c", _SCRIPT, "guard", number.name.removeprefix("SIG"), str(pid)],
            cwd="/",
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def dismiss(self) -> None:
        """End it, its signal unsent; harmless when done before."""
        self._process.kill()
        self._process.communicate()
