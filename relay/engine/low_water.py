"""Say above which sequence number to look for pending events, to skip the dead index entries of a held snapshot."""

from __future__ import annotations

from collections import deque

__all__ = ["LowWater"]

BEHIND_SECONDS = 5.0
FULL_LOOK_SHARE = 10  # looks without the mark may take a tenth of the time


class LowWater:
    """A mark BEHIND_SECONDS behind what was taken, and the times of looks without it.

    A look without the mark comes every BEHIND_SECONDS, and after an empty look with it, unless such looks are slow. It
    finds events whose transaction committed late: the mark is a hint for speed, never the truth.
    """

    def __init__(self) -> None:
        self._taken: deque[tuple[float, int]] = deque()
        self._mark = -1
        self._full_wanted_at = 0.0
        self._full_allowed_at = 0.0

    def bound(self, now: float) -> int:
        """Return the sequence number to look above; -1 looks at everything."""
        while self._taken and self._taken[0][0] < now - BEHIND_SECONDS:
            self._mark = self._taken.popleft()[1] - 1
        return -1 if now >= max(self._full_wanted_at, self._full_allowed_at) else self._mark

    def note_taken(self, now: float, first_seq: int) -> None:
        """Note that a batch taken at `now` began with this event."""
        self._taken.append((now, first_seq))

    def note_look(self, low: int, began: float, ended: float, *, found: bool) -> None:
        """Note a look above `low`: how long it took, and whether it found anything."""
        if low < 0:
            self._full_allowed_at = ended + FULL_LOOK_SHARE * (ended - began)
            self._full_wanted_at = ended + BEHIND_SECONDS
        if not found:
            self._full_wanted_at = ended
