"""Follow a database that is away: how long to wait, and one log line at first, every ten seconds, and at its return."""

from __future__ import annotations

import logging
import time

from relay.store.postgres_errors import Meaning, meaning_of, mend_of, one_line

__all__ = ["LoopOutage", "Outage"]

log = logging.getLogger("relay.database")

LINE_EVERY_SECONDS = 10.0
PAUSE_FIRST_SECONDS = 0.1
PAUSE_MAX_SECONDS = 1.0


class Outage:
    """Counts failures. Each loop of an engine tells one of its own, so that an outage is logged once."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._logged_at = -LINE_EVERY_SECONDS
        self._is_logged = False
        self._end = "back"
        self._failing: set[LoopOutage] = set()
        self.failures = 0

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next try: 0.1 s, doubling up to 1 s."""
        return min(PAUSE_MAX_SECONDS, PAUSE_FIRST_SECONDS * 2.0 ** min(self.failures, 10))

    def of_loop(self) -> LoopOutage:
        """Return one loop's side: the outage lasts for as long as any loop fails."""
        return LoopOutage(self, self._failing)

    def note_failure(self, error: BaseException) -> None:
        """Count a failed try; log it, at most one line in ten seconds, with the mend where there is one."""
        now = time.monotonic()
        self.failures += 1
        self._since = now if self._since is None else self._since
        meaning = meaning_of(error)
        self._end = "back" if meaning is Meaning.AWAY else "works again"
        if now - self._logged_at >= LINE_EVERY_SECONDS:
            self._logged_at, self._is_logged = now, True
            told = "; ".join(filter(None, (one_line(error), mend_of(error))))
            log.warning("database: %s for %.0f s, trying on: %s", meaning, now - self._since, told)

    def note_success(self) -> None:
        """End the outage, if there was one; log that the database is back."""
        if self._since is not None and self._is_logged:
            log.warning("database: %s after %.1f s", self._end, time.monotonic() - self._since)
        self._since, self._is_logged, self.failures = None, False, 0


class LoopOutage:
    """One loop's side of an outage. One loop may work while another does not: then nothing is back."""

    def __init__(self, whole: Outage, failing: set[LoopOutage]) -> None:
        self._whole = whole
        self._failing = failing

    @property
    def pause_seconds(self) -> float:
        """How long this loop waits before its next try."""
        return self._whole.pause_seconds

    def note_failure(self, error: BaseException) -> None:
        """Count a failed try of this loop."""
        self._failing.add(self)
        self._whole.note_failure(error)

    def note_success(self) -> None:
        """Note that the database answered this loop; the outage ends once no loop fails."""
        self._failing.discard(self)
        if not self._failing:
            self._whole.note_success()
