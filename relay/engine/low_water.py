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
    slow. It finds events whose transaction committed late: the mark is a hint for speed, never the truth. Two slow ones
    in a row make them slow: a single one may have waited for a lock, or while this machine stood still.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._mark = -1
        self._full_wanted_at = 0.0
        self._full_allowed_at = 0.0
        self._full_seconds = 0.0  # that the last look without the mark took
        self._untaken: int | None = None  # above which fan_out has to take, since a look found something there

    def bound(self, now: float) -> int:
        """Return the sequence number to look above; -1 looks at everything."""
        while self._seen and self._seen[0][0] <= now - BEHIND_SECONDS:
            self._mark = self._seen.popleft()[1] - 1
        return -1 if now >= max(self._full_wanted_at, self._full_allowed_at) else self._mark

    def note_taken(self) -> None:
        """Note that fan_out took something above what `note_look` returned."""
        self._untaken = None

    def note_look(self, low: int, began: float, ended: float, first: int | None, drawn: int) -> int:
        """Note a look above `low`; return above which number to take.

        What a look without the mark found is taken, even where fan_out comes after the next look, which has the mark.

        Args:
            low: the number it looked above.
            began: when it began.
            ended: when it ended.
            first: the first event that it found, if any.
            drawn: the last number that any event had then.
        """
        if low < 0:
            self._full_allowed_at = ended + FULL_LOOK_SHARE * min(ended - began, self._full_seconds)
            self._full_seconds = ended - began
            self._full_wanted_at = ended + FULL_LOOK_EVERY_SECONDS
        if first is None:
            self._full_wanted_at = ended
        self._seen.append((began, drawn + 1 if first is None else first))
        if first is None:
            self._untaken = None
            return low
        self._untaken = first - 1 if self._untaken is None else min(self._untaken, first - 1)
        return self._untaken
