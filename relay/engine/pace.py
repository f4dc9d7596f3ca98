"""How fast the database answers now: what the engine's own limits follow, and what the log says of a slow one.

Slow is not down. A lease must outlast the way of its claim's answer, the attempt, and the settling; so what is added to
the timeout grows with the times measured. How many bytes one answer may bring follows the speed of the link.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from relay.store.lease import LEASE_SLACK_SECONDS, START_WITHIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Pace"]

log = logging.getLogger("relay.database")

SAID_AFTER_SECONDS = 3.0  # a statement that takes longer is said in the log
SAID_EVERY_SECONDS = 10.0
MEASURED_MAX_SECONDS = 60.0
HALVED_EVERY_SECONDS = 15.0  # a verb that nobody uses any more says less and less of the database
BYTES_MAX = 16 * 1024 * 1024
BYTES_FIRST = 2 * 1024 * 1024
BYTES_FROM = 512 * 1024  # below this an answer's time says more about the statement than about the link
BYTES_MIN = 64 * 1024
ROWS_MAX = 500
QUICK_SECONDS = 0.25
SLOW_SECONDS = 1.0


class Pace:
    """The times of one engine's statements. Each new one counts at once when it is longer, and by halves when shorter.

    What was measured is halved every fifteen seconds too: a verb that was slow once may not be used again for days.

    bytes, rows: how much the next answer may bring.
    """

    def __init__(self) -> None:
        self._measured: dict[str, tuple[float, float]] = {}  # verb: seconds, and when
        self._said_at = -SAID_EVERY_SECONDS
        self.bytes = BYTES_FIRST
        self.rows = ROWS_MAX

    @property
    def feeding_seconds(self) -> float:
        """How long an answer to this engine's looking takes."""
        return max((self._seconds_of(verb) for verb in self._measured if verb not in ("settle", "release")), default=0)

    @property
    def start_within_seconds(self) -> float:
        """How long after the begin of its lease an attempt may begin."""
        return max(START_WITHIN_SECONDS, 1.0 + 2 * self.feeding_seconds)

    @property
    def slack_seconds(self) -> float:
        """How much longer than the attempt's timeout a lease lasts: the time to begin, and that to settle."""
        settling = 1.0 + 2 * self._seconds_of("settle")
        return self.start_within_seconds + max(LEASE_SLACK_SECONDS - START_WITHIN_SECONDS, settling)

    def _seconds_of(self, verb: str) -> float:
        seconds, measured_at = self._measured.get(verb, (0.0, 0.0))
        halvings = (time.monotonic() - measured_at) // HALVED_EVERY_SECONDS
        return seconds * math.pow(0.5, halvings)  # 0 for however many, where 2 to that power would be too large

    @contextmanager
    def timing(self, verb: str) -> Iterator[None]:
        """Measure the statements in a block; log when they take long, every ten seconds and at their end."""
        began = time.monotonic()
        watch = _Watch(self, verb, began)
        try:
            yield
        finally:
            now = time.monotonic()
            seconds = now - began
            self._measured[verb] = (min(MEASURED_MAX_SECONDS, max(seconds, self._seconds_of(verb) / 2)), now)
            watch.end(seconds)

    def note_answer(self, size: int, seconds: float) -> None:
        """Note how many bytes of bodies an answer brought in so many seconds."""
        if seconds < QUICK_SECONDS:
            self.rows = min(ROWS_MAX, 2 * self.rows)
            if size >= self.bytes // 2:
                self.bytes = min(BYTES_MAX, 2 * self.bytes)
        elif seconds > SLOW_SECONDS and size > BYTES_FROM:
            self.bytes = min(self.bytes, max(BYTES_FROM, int(size / seconds)))

    def note_late(self) -> None:
        """Note that an answer came after the time to begin: ask for half the next time."""
        self.bytes = max(BYTES_MIN, self.bytes // 2)
        self.rows = max(1, self.rows // 2)

    def may_say(self) -> bool:
        """Tell whether ten seconds have passed since the last line; if so, count this one."""
        now = time.monotonic()
        if now < self._said_at + SAID_EVERY_SECONDS:
            return False
        self._said_at = now
        return True


class _Watch:
    """Says that one statement takes long, while it does."""

    __slots__ = ("_began", "_pace", "_said", "_timer", "_verb")

    def __init__(self, pace: Pace, verb: str, began: float) -> None:
        self._pace, self._verb, self._began = pace, verb, began
        self._said = False
        self._timer = asyncio.get_running_loop().call_later(SAID_AFTER_SECONDS, self._say)

    def _say(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SAID_EVERY_SECONDS, self._say)
        if self._said or self._pace.may_say():
            self._said = True
            log.warning("database: slow: %s has taken %.0f s so far", self._verb, time.monotonic() - self._began)

    def end(self, seconds: float) -> None:
        self._timer.cancel()
        if self._said:
            log.warning("database: slow: %s took %.1f s", self._verb, seconds)
