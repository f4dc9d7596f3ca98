"""Write log lines from a thread of their own: whoever logs never waits for the reader of standard error.

A terminal that was stopped (Ctrl-S), a full disk or a pipe whose reader stands still would otherwise stop the event
loop, and with it every delivery. The lines wait in a bounded queue; what comes while it is full is dropped, and a line
says how many were dropped when the reader moves on.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BackgroundHandler"]

LINES_MAX = 10_000
CLOSE_SECONDS = 1.0  # the longest that an exit waits for a reader that stands still
_LOOK_AGAIN_SECONDS = 1.0


class BackgroundHandler(logging.Handler):
    """A logging handler that gives formatted lines to a thread, which writes them to a file descriptor.

    It writes past Python's buffered streams: at its end the interpreter would wait for the lock that a blocked write
    on one holds, or leave with 120.

    Args:
        descriptor: of the open file; it stays open.
        dropped_line: makes the line, without its end, that says how many lines were dropped.
        lines_max: how many lines may wait.
    """

    def __init__(self, descriptor: int, dropped_line: Callable[[int], str], *, lines_max: int = LINES_MAX) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._dropped_line = dropped_line
        self._lines_max = lines_max
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._changed = threading.Condition()
        self._is_writing = self._is_closed = False
        threading.Thread(target=self._write_all_lines, name="log", daemon=True).start()

    @property
    def queued(self) -> int:
        """How many lines wait for the thread."""
        return len(self._lines)

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and queue its line; count it instead while the queue is full."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a line that cannot be made must not end what it is about
            self.handleError(record)
            return
        with self._changed:
            if len(self._lines) >= self._lines_max:
                self._dropped += 1
                return
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything queued is written, CLOSE_SECONDS at most. Called at the exit of the process."""
        give_up = time.monotonic() + CLOSE_SECONDS
        with self._changed:
            while self._lines or self._dropped or self._is_writing:
                left = give_up - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return

    def close(self) -> None:
        """Let the thread end once it has written what is queued; what comes later is not written."""
        super().close()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _write_all_lines(self) -> None:
        while (line := self._next()) is not None:
            _write_all(self._descriptor, f"{line}\n".encode(errors="backslashreplace"))
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()

    def _next(self) -> str | None:
        """Wait for the next line; after those that were queued, the one that says how many were dropped, then None."""
        with self._changed:
            while not (self._lines or self._dropped):
                if self._is_closed:
                    return None
                self._changed.wait()
            self._is_writing = True
            if self._lines:
                return self._lines.popleft()
            dropped, self._dropped = self._dropped, 0
            return self._dropped_line(dropped)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, however long that takes; discard what cannot be written."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # somebody who shares the file made it non-blocking
            select.select([], [descriptor], [], _LOOK_AGAIN_SECONDS)
        except OSError:  # nobody reads, or the disk is full: there is no better place to say so
            return
