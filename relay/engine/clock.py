"""The database's clock, continued between two polls by this process's monotonic time."""

from __future__ import annotations

import logging
import time

__all__ = ["DatabaseClock"]

TELL_FROM_SECONDS = 60.0
"""What differs by more is said in the log: receivers refuse a signature whose time is five minutes off."""

log = logging.getLogger("relay.engine")


class DatabaseClock:
    """Tells the database's time for signatures, whatever this machine's clock says; says it where they differ."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._told = 0.0  # the difference that the log has, in seconds
        self._second, self._digits = -1, b""  # the last timestamp

    def set(self, unix_seconds: float) -> None:
        """Set the clock to the database's time."""
        self._offset = unix_seconds - time.monotonic()
        differs = unix_seconds - time.time()
        if abs(differs - self._told) > TELL_FROM_SECONDS:
            self._tell(differs)

    def _tell(self, differs: float) -> None:
        """Write to the log by how many seconds the database's clock is ahead of this machine's."""
        self._told = differs if abs(differs) > TELL_FROM_SECONDS else 0.0
        if not self._told:
            log.info("the database's clock and this machine's agree again")
            return
        log.warning(
            "the database's clock is %.0f s %s this machine's: attempts are signed with the database's time, and"
            " receivers refuse what is five minutes off; set the clock that is wrong",
            abs(differs),
            "ahead of" if differs > 0 else "behind",
        )

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return time.monotonic() + self._offset

    def timestamp(self) -> bytes:
        """Return whole seconds since 1970 in decimal digits, for a header."""
        second = int(time.monotonic() + self._offset)
        if second != self._second:
            self._second, self._digits = second, b"%d" % second
        return self._digits
