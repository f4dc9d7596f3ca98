"""Attempts that ended while this process stood still: SIGSTOP, a machine that was suspended, a loop that was too busy.

What the endpoint did meanwhile nobody saw, so the attempt is tried again, uncharged, and says nothing of its health. A
process that is always late must not keep a delivery for ever: after UNCHARGED_MAX of them it is an ordinary timeout.
Each process counts them in memory, as it does with refusals (slowing.py).
"""

from __future__ import annotations

import logging
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
WARN_EVERY_SECONDS = 10.0


class Standstill:
    """Counts such attempts of one engine. Empty while all is well."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._ended = 0  # since the log last said so
        self._said_at = -WARN_EVERY_SECONDS

    def weigh(self, delivery: Delivery, outcome: Outcome) -> tuple[Outcome, float | None]:
        """Note such an outcome; return it and in how many seconds to try again, uncharged.

        That is a second after the first of this delivery, two after the second. Once it had its share: a timeout, and
        None.
        """
        count = self._counts.pop(delivery.id, 0) + 1
        self._counts[delivery.id] = count
        if len(self._counts) > COUNTED_MAX:
            del self._counts[next(iter(self._counts))]
        if count > UNCHARGED_MAX:
            return outcome._replace(kind=OutcomeKind.TIMEOUT), None
        self._tell()
        return outcome, min(float(count), WAIT_MAX_SECONDS)

    def _tell(self) -> None:
        """Log how many, a line in ten seconds."""
        self._ended += 1
        if (now := time.monotonic()) >= self._said_at + WARN_EVERY_SECONDS:
            log.warning("this process stood still; attempts tried again for it, uncharged: %d", self._ended)
            self._ended, self._said_at = 0, now
