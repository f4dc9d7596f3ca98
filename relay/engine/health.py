"""An endpoint's health: the window of requests it may have at once, its latency, and whether it answers.

The window grows by one with each success and is halved by each failure to answer, so an endpoint that hangs soon holds
a single slot.
"""

from __future__ import annotations

from relay.model.outcome import OutcomeKind

__all__ = ["Health"]

WINDOW_START = 16
QUEUE_SECONDS = 1.0
QUEUE_MAX = 1024
UNHEALTHY = frozenset(
    {
        *(OutcomeKind.TIMEOUT, OutcomeKind.REFUSED, OutcomeKind.CONNECTION, OutcomeKind.DNS, OutcomeKind.TLS),
        OutcomeKind.AUTHORIZATION,
    }
)
OVERLOADED = frozenset({429, 503})


class Health:
    """Learns from one endpoint's outcomes. `window` is how many requests it may have on the wire."""

    __slots__ = ("_latency", "_window_max", "answers", "window")

    def __init__(self, window_max: int) -> None:
        self._window_max = window_max
        self._latency = 0.0
        self.window = min(WINDOW_START, window_max)
        self.answers = False  # whether the endpoint answered the last time it was asked

    def learn(self, kind: OutcomeKind, status: int | None, seconds: float) -> None:
        """Adapt to one outcome. `seconds`: how long the attempt took."""
        if kind == OutcomeKind.TRANSFORMATION_FAILED:  # the endpoint was not asked
            return
        self._latency += (seconds - self._latency) / 8
        self.answers = status is not None or (self.answers and kind not in UNHEALTHY)
        if status in OVERLOADED or (status is None and kind in UNHEALTHY):  # an answer is neither
            self.window = max(1, self.window // 2)
        elif self.window < self._window_max:
            self.window += 1

    @property
    def capacity(self) -> int:
        """How many deliveries may be leased: the window; once that is at its maximum, a second's work more."""
        if self.window < self._window_max:
            return self.window
        return self.window + min(QUEUE_MAX, int(self.window * QUEUE_SECONDS / max(self._latency, 0.001)))
