"""An endpoint's window: how many requests it may have at once, by its latency and by whether it answers.

It grows by one with each success and is halved by each failure to answer, so an endpoint that hangs soon holds
a single slot.
"""

from __future__ import annotations

import math

from relay.model.outcome import DELIVERED, NOT_ASKED, OVERLOADED, OutcomeKind

__all__ = ["Window"]

WINDOW_START = 16
QUEUE_OF_WINDOW_SECONDS = 1.0  # so much work is leased ahead of a window at its maximum
QUEUE_MAX = 1024
SLOW_SECONDS, QUICK_SECONDS = 2.0, 1.0  # of latency: from the one on an endpoint is slow, below the other it is not
TAKES_SECONDS = 900.0  # for so long after its last success an endpoint counts as one that takes requests
UNHEALTHY = frozenset(
    {
        *(OutcomeKind.TIMEOUT, OutcomeKind.REFUSED, OutcomeKind.CONNECTION, OutcomeKind.DNS, OutcomeKind.TLS),
        OutcomeKind.AUTHORIZATION,
    }
)
NOT_LEARNT = NOT_ASKED | {OutcomeKind.INTERNAL, OutcomeKind.STOOD_STILL}


class Window:
    """Learns from one endpoint's outcomes. `size` is how many requests it may have on the wire.

    latency: seconds that an attempt takes, smoothed; the first one as it was. proven: whether it answered the last time
    it was asked, and does so within a second or two; each delivery asks ten times, so it is worked out when it changes.
    """

    __slots__ = ("_accepted", "_accepted_at", "_answers", "_size_max", "is_slow", "latency", "proven", "size")

    def __init__(self, window_max: int) -> None:
        self._size_max = window_max
        self.latency = 0.0
        self._accepted = False  # whether it took anything since `takes` was asked; _accepted_at: until then
        self._accepted_at = -math.inf
        self.size = min(WINDOW_START, window_max)
        self.is_slow = False  # whether its requests hold their places as long as those of one that does not answer
        self._answers = self.proven = False

    @property
    def answers(self) -> bool:
        """Whether the endpoint answered the last time it was asked."""
        return self._answers

    @answers.setter
    def answers(self, answers: bool) -> None:
        self._answers = answers
        self.proven = answers and not self.is_slow

    def learn(self, kind: OutcomeKind, status: int | None, seconds: float) -> None:
        """Adapt to one outcome. `seconds`: how long the attempt took."""
        if kind in NOT_LEARNT:  # the time that it took is not the endpoint's either
            return
        self.latency += (seconds - self.latency) / (8 if self.latency else 1)
        self.is_slow = self.latency >= (QUICK_SECONDS if self.is_slow else SLOW_SECONDS)
        self._answers = status is not None or (self._answers and kind not in UNHEALTHY)
        self.proven = self._answers and not self.is_slow
        if status in OVERLOADED or (status is None and kind in UNHEALTHY):  # an answer is neither
            self.size = max(1, self.size // 2)
            return
        if kind == DELIVERED:
            self._accepted = True
        if self.size < self._size_max:
            self.size += 1

    def takes(self, now: float) -> bool:
        """Tell whether it took anything lately, so that a refusal means "not so many", and not "nothing"."""
        if self._accepted:
            self._accepted, self._accepted_at = False, now
        return now - self._accepted_at <= TAKES_SECONDS

    @property
    def guess(self) -> float:
        """Half of how many requests a second the window allows at the latency seen."""
        return max(1.0, min(1000.0, self.size / max(self.latency, 0.001) / 2))

    @property
    def is_measured(self) -> bool:
        """Whether any attempt has ended."""
        return self.latency > 0

    def work_of(self, size: int, seconds: float) -> int:
        """Return how many requests so large a window answers in this time."""
        return min(QUEUE_MAX, int(size * seconds / max(self.latency, 0.001)))

    @property
    def capacity(self) -> int:
        """How many deliveries may be leased: the window; once that is at its maximum, a second's work more."""
        if self.size < self._size_max:
            return self.size
        return self.size + self.work_of(self.size, QUEUE_OF_WINDOW_SECONDS)
