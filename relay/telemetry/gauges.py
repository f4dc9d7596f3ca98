"""The state of the database that is measured: read every few seconds at most, however often it is asked for."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["COUNTED_UP_TO", "Gauges", "KeptGauges", "Reading"]

COUNTED_UP_TO = 10_000
"""Where counting stops: a backlog is never counted from end to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """How the database stands. Counts of rows stop at COUNTED_UP_TO; ages are seconds, 0 where nothing waits."""

    due: int
    oldest_due_seconds: float
    pending: int
    oldest_pending_seconds: float
    dead_letters: int
    leased: int
    relays: int
    sending_paused: bool
    subscriptions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading, when (monotonic), and the error in one line where it failed."""

    at: float
    gauges: Gauges | None
    error: str = ""


class KeptGauges:
    """Gauges that are read again when they are `keep_seconds` old, by one thread at a time.

    `read` may raise anything; `explain` makes one line of it, without a secret. An error is kept for a second only.
    """

    def __init__(
        self, read: Callable[[], Gauges], explain: Callable[[Exception], str], *, keep_seconds: float = 10.0
    ) -> None:
        self._read = read
        self._explain = explain
        self._keep_seconds = keep_seconds
        self._turn = threading.Lock()
        self._last: Reading | None = None

    def get(self) -> Reading:
        """Return the last reading, or a new one where that is too old."""
        with self._turn:
            last = self._last
            if last is None or time.monotonic() - last.at > (self._keep_seconds if last.gauges else 1.0):
                last = self._last = self._read_now()
            return last

    def _read_now(self) -> Reading:
        try:
            gauges = self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is that it could not be read
            return Reading(time.monotonic(), None, self._explain(error))
        return Reading(time.monotonic(), gauges)
