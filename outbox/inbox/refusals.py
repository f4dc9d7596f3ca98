"""How many refused requests get a row: whoever can reach the endpoint can send them, and none may fill a disk.

Each process writes a burst of 20 rows a source, then one every six seconds: 14,400 a day, some 10 MB. The others are
counted, and the next row says how many they were. The tenant does not count, nor do more than a hundred sources: an
application may take either from the address, and so from whoever asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["BURST", "MOST_SOURCES", "ROW_EVERY_SECONDS", "Bound"]

BURST = 20
ROW_EVERY_SECONDS = 6.0
MOST_SOURCES = 100
_OTHERS = ""  # no source has this name


@dataclass
class _Source:
    seen_at: float
    left: float = BURST
    unrecorded: int = 0


class Bound:
    """A bucket of rows for each source, and one for all after the hundredth."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sources: dict[str, _Source] = {}

    def take(self, source: str) -> int | None:
        """Return how many refused requests before this one have no row, or None where this one gets none either."""
        with self._lock:
            now = self._clock()
            known = source in self._sources or len(self._sources) < MOST_SOURCES
            one = self._sources.setdefault(source if known else _OTHERS, _Source(now))
            one.left, one.seen_at = min(BURST, one.left + (now - one.seen_at) / ROW_EVERY_SECONDS), now
            if one.left < 1:
                one.unrecorded += 1
                return None
            one.left -= 1
            unrecorded, one.unrecorded = one.unrecorded, 0
            return unrecorded
