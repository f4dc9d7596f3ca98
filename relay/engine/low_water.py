"""Say above which sequence number to look for pending events, to skip the dead index entries of a held snapshot."""

from __future__ import annotations

from collections import deque

__all__ = ["LowWater"]

BEHIND_SECONDS = 1.0
FULL_LOOK_EVERY_SECONDS = 0.25  # however quick they are
FULL_LOOK_SHARE = 20  # looks without the mark may take a twentieth of the time


class LowWater:
    """A mark, where looks BEHIND_SECONDS ago found the first pending event, and the times of looks without it.

    A look without the mark comes every FULL_LOOK_EVERY_SECONDS, and after an empty look with it, unless such looks are
    slow. It finds events whose transaction committed late: the mark is a hint for speed, never the truth.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._mark = -1
        self._full_wanted_at = 0.0
        self._full_allowed_at = 0.0

    def bound(self, now: float) -> int:
        """Return the sequence number to look above; -1 looks at everything."""
        while self._seen and self._seen[0][0] <= now - BEHIND_SECONDS:
            self._mark = self._seen.popleft()[1] - 1
        return -1 if now >= max(self._full_wanted_at, self._full_allowed_at) else self._mark

    def note_look(self, low: int, began: float, ended: float, first: int | None, drawn: int) -> None:
        """Note a look above `low`: how long it took, and the first event that it found, if any.

        `drawn`: the last number that any event had then.
        """
        if low < 0:
            self._full_allowed_at = ended + FULL_LOOK_SHARE * (ended - began)
            self._full_wanted_at = ended + FULL_LOOK_EVERY_SECONDS
        if first is None:
            self._full_wanted_at = ended
        self._seen.append((began, drawn + 1 if first is None else first))
