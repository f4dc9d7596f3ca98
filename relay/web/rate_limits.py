"""How many requests a token may make: a bucket for each, in this process. Several processes each give as much."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

__all__ = ["Allowance", "RateLimits"]

_MOST_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a request was given: whether it may be done, how many may follow at once, and when there is more."""

    granted: bool
    per_minute: int
    remaining: int
    wait_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """The RateLimit fields of the IETF's draft."""
        policy = f'"token";q={self.per_minute};w=60'
        return {"RateLimit-Policy": policy, "RateLimit": f'"token";r={self.remaining};t={self.wait_seconds}'}


class RateLimits:
    """Buckets that hold a minute's requests and fill evenly. Those that were not asked for longest are forgotten."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._left_at: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, whose: Hashable) -> Allowance:
        """Take one request out of a bucket, if there is one."""
        now, rate = self._clock(), self._per_minute / 60
        with self._lock:
            left, at = self._left_at.pop(whose, (float(self._per_minute), now))
            left = min(self._per_minute, left + (now - at) * rate)
            granted = left >= 1
            left -= granted
            self._left_at[whose] = left, now
            if len(self._left_at) > _MOST_BUCKETS:
                self._left_at.popitem(last=False)
        wait = 0 if left >= 1 else math.ceil((1 - left) / rate)
        return Allowance(granted=granted, per_minute=self._per_minute, remaining=int(left), wait_seconds=wait)
