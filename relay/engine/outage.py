"""Follow a database that is away: how long to wait, and one log line at first, every ten seconds, and at its return."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

__all__ = ["Outage", "is_refusal", "one_line"]

log = logging.getLogger("relay.database")

LINE_EVERY_SECONDS = 10.0
PAUSE_FIRST_SECONDS = 0.1
PAUSE_MAX_SECONDS = 1.0
# SQLSTATE classes of errors that are not about the rows: connection, read-only, rollback, access rules and names,
# resources, object state, operator intervention, system error.
PASSING_CLASSES = frozenset({"08", "25", "40", "42", "53", "55", "57", "58"})


class Outage:
    """Counts failures. The loops of an engine share one, so that an outage is logged once."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._logged_at = -LINE_EVERY_SECONDS
        self._is_logged = False
        self.failures = 0

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next try: 0.1 s, doubling up to 1 s."""
        return min(PAUSE_MAX_SECONDS, PAUSE_FIRST_SECONDS * 2.0 ** min(self.failures, 10))

    def note_failure(self, error: BaseException) -> None:
        """Count a failed try; log it, at most one line in ten seconds."""
        now = time.monotonic()
        self.failures += 1
        self._since = now if self._since is None else self._since
        if now - self._logged_at >= LINE_EVERY_SECONDS:
            self._logged_at, self._is_logged = now, True
            log.warning("database: away for %.0f s, trying on: %s", now - self._since, one_line(error))

    def note_success(self) -> None:
        """End the outage, if there was one; log that the database is back."""
        if self._since is not None and self._is_logged:
            log.warning("database: back after %.1f s", time.monotonic() - self._since)
        self._since, self._is_logged, self.failures = None, False, 0


def is_refusal(error: psycopg.Error) -> bool:
    """Tell whether the server refused these very rows, rather than being away, busy, read-only or set up wrongly.

    Refused rows block all others until they are isolated. Every other error passes, or a person repairs it; until then
    nothing may be given up.
    """
    return error.sqlstate is not None and error.sqlstate[:2] not in PASSING_CLASSES


def one_line(error: BaseException) -> str:
    """Return the error's type and the first line of its text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
