"""The database's clock, told between two polls by this process's monotonic time."""

from __future__ import annotations

import time

__all__ = ["DatabaseClock"]


class DatabaseClock:
    """Signatures carry the database's time, whatever this machine's clock says."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def set(self, unix_seconds: float) -> None:
        """Take over what the database says it is now."""
        self._offset = unix_seconds - time.monotonic()

    def timestamp(self) -> bytes:
        """Return whole seconds since 1970, as a header carries them."""
        return b"%d" % (time.monotonic() + self._offset)
