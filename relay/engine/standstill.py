"""Attempts that ended while this process stood still: it was stopped (SIGSTOP), or its loop was far too busy.

What the endpoint did meanwhile nobody saw, so the attempt is tried again, uncharged, and says nothing of its health. A
process that is always late must not keep a delivery for ever: after UNCHARGED_MAX of them it is an ordinary timeout,
and so is each of a delivery for whose count there is no room. Each process counts them in memory, as it does with
refusals (slowing.py), and forgets them when it has run well for a while.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from relay.model.outcome import OutcomeKind

if TYPE_CHECKING:
    from relay.model.delivery import Delivery
    from relay.model.outcome import Outcome

__all__ = ["UNCHARGED_MAX", "Standstill"]

log = logging.getLogger("relay.engine")

UNCHARGED_MAX = 5
WAIT_MAX_SECONDS = 5.0
COUNTED_MAX = 4096  # deliveries whose attempts are remembered
FORGET_SECONDS = 900.0  # after the last one
WARN_EVERY_SECONDS = 10.0


class Standstill:
    """Counts such attempts of one engine."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._last_at = -math.inf
        self._ended = 0  # since the log last said so
        self._said_at = -WARN_EVERY_SECONDS

    def weigh(self, delivery: Delivery, outcome: Outcome) -> tuple[Outcome, float | None]:
        """Note such an outcome; return it and in how many seconds to try again, uncharged.

        That is a second after the first of this delivery, two after the second. Once it had its share: a timeout, and
        None.
        """
        now = time.monotonic()
        if now >= self._last_at + FORGET_SECONDS:
            self._counts.clear()
        self._last_at = now
        count = self._counts.get(delivery.id, 0)
        if count == UNCHARGED_MAX or (not count and len(self._counts) == COUNTED_MAX):
            return outcome._replace(kind=OutcomeKind.TIMEOUT), None
        self._counts[delivery.id] = count = count + 1
        self._tell()
        return outcome, min(float(count), WAIT_MAX_SECONDS)

    def _tell(self) -> None:
        """Log how many, a line in ten seconds."""
        self._ended += 1
        if (now := time.monotonic()) >= self._said_at + WARN_EVERY_SECONDS:
            log.warning("this process stood still; attempts tried again for it, uncharged: %d", self._ended)
            self._ended, self._said_at = 0, now
