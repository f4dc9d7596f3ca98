"""What the demo shows while it runs: figures from the two logs, and what the relay says of itself."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.local.demo.result import ReceiverLog, ShopLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Backlog", "Figures", "Latency", "Observer", "percentile"]

_RECENT_SECONDS = 5.0
_RATE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the database holds: pending events; deliveries, and those among them that wait for a retry; dead letters."""

    pending: int = 0
    deliveries: int = 0
    retrying: int = 0
    dead: int = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing left to deliver."""
        return not (self.pending or self.deliveries)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one moment: latencies in milliseconds, None before there are any; rate a second."""

    orders: int
    orders_planned: int
    recorded: int
    delivered: int
    in_flight: int
    retrying: int
    dead: int
    rate: float
    p50: float | None
    p99: float | None
    misbehaved: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Latency:
    """From an event's commit to its first arrival, both in Unix time."""

    committed: float
    arrived: float

    @property
    def milliseconds(self) -> float:
        """How long it took. The shop's note of the commit may come after the arrival: that is 0."""
        return max(0.0, self.arrived - self.committed) * 1000

    def overlaps(self, start: float, end: float) -> bool:
        """Whether the event was on its way at some time between `start` and `end`."""
        return self.committed < end and self.arrived > start


class Observer:
    """Follows both logs; holds what was read, and the latency from commit to first arrival."""

    def __init__(self, orders_planned: int) -> None:
        self.shop = ShopLog()
        self.receiver = ReceiverLog()
        self.latencies: dict[str, Latency] = {}
        self._orders_planned = orders_planned
        self._unpaired: dict[str, float] = {}
        self._recent: deque[tuple[float, float]] = deque()
        self._delivered: set[str] = set()
        self._successes: deque[float] = deque()
        self._misbehaved: Counter[str] = Counter()

    def read(self, shop_lines: Iterable[str], receiver_lines: Iterable[str]) -> None:
        """Take in new lines of both logs."""
        for line in shop_lines:
            self.shop.read(line)
        for line in receiver_lines:
            request = self.receiver.read(line)
            if request is None:
                continue
            if request.end == "open":
                self._note_arrival(request.event_id, request.at)
                self._misbehaved[request.plan] += 1
            elif request.succeeded and request.event_id not in self._delivered:
                self._delivered.add(request.event_id)
                self._successes.append(time.monotonic())
        self._pair()

    def _note_arrival(self, event_id: str, at: float) -> None:
        if event_id not in self.latencies:
            self._unpaired.setdefault(event_id, at)

    def _pair(self) -> None:
        """Match first arrivals with their commits; the commit may be written down after the arrival."""
        for event_id in self._unpaired.keys() & self.shop.committed.keys():
            latency = Latency(self.shop.committed[event_id], self._unpaired.pop(event_id))
            self.latencies[event_id] = latency
            self._recent.append((time.monotonic(), latency.milliseconds))

    def figures(self, backlog: Backlog) -> Figures:
        """Return the figures of this moment."""
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - _RECENT_SECONDS:
            self._recent.popleft()
        while self._successes and self._successes[0] < now - _RATE_SECONDS:
            self._successes.popleft()
        recent = [latency for _, latency in self._recent]
        return Figures(
            orders=len(self.shop.committed) + len(self.shop.rolled_back),
            orders_planned=self._orders_planned,
            recorded=len(self.shop.committed),
            delivered=len(self._delivered),
            in_flight=len(self.receiver.open),
            retrying=backlog.retrying,
            dead=backlog.dead,
            rate=len(self._successes) / _RATE_SECONDS,
            p50=percentile(recent, 50),
            p99=percentile(recent, 99),
            misbehaved={plan: count for plan, count in self._misbehaved.items() if plan != "ok"},
        )


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that `percent` of them do not exceed, or None of none."""
    if not values:
        return None
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]
