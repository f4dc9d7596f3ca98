"""The database's clock, continued between two polls by this process's monotonic time."""

from __future__ import annotations

import time

__all__ = ["DatabaseClock"]


class DatabaseClock:
    """Tells the database's time for signatures, whatever this machine's clock says."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def set(self, unix_seconds: float) -> None:
        """Set the clock to the database's time."""
        self._offset = unix_seconds - time.monotonic()

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return time.monotonic() + self._offset

    def timestamp(self) -> bytes:
        """Return whole seconds since 1970 in decimal digits, for a header."""
        return b"%d" % (time.monotonic() + self._offset)
