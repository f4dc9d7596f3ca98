"""What this process holds of a limit: slots, each the right to send one request from its time on, for a moment.

They come from a cell that all relays share (relay/store/limits.py). What is not used in time goes back to it with the
next question.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING

from relay.store.limits import AHEAD_SECONDS, AskedSlots

if TYPE_CHECKING:
    from relay.engine.endpoint import Endpoint
    from relay.store.limits import GrantedSlots

__all__ = ["Slots"]

TENTH = 10  # of a second's requests: the burst where none is set


class Slots:
    """The slots of one cell: of an endpoint's own limit, or of one that its tenant's endpoints share.

    rate: requests a second that are allowed; None: what the receiver was seen to take. next_ask: the monotonic time
    from which asking the cell makes sense. accepted, refused: answers that the cell does not know yet. slowed: whether
    the cell gives what the receiver was seen to take.
    """

    __slots__ = ("__weakref__", "_late", "_members", "_times", "_unused", "accepted", "burst", "guess", "id",
                 "interval", "latency", "next_ask", "rate", "refused", "slowed")  # fmt: skip

    def __init__(self, cell_id: bytes) -> None:
        self.id = cell_id
        self.rate: float | None = None
        self.burst = 1
        self.guess = 1.0
        self.latency = 0.0
        self.interval: float | None = None
        self.next_ask = 0.0
        self.accepted = 0
        self.refused = 0
        self.slowed = False
        self._times: deque[float] = deque()
        self._late = 0.0
        self._unused = 0
        self._members: dict[Endpoint, None] = {}

    def limit(self, rate: float | None, burst: int | None) -> None:
        """Use this limit from now on; what was taken under another one stays."""
        if (rate, burst or self._own_burst(rate)) != (self.rate, self.burst):
            self.rate, self.burst, self.next_ask = rate, burst or self._own_burst(rate), 0.0

    @staticmethod
    def _own_burst(rate: float | None) -> int:
        return max(1, int(rate / TENTH)) if rate else 1

    def enter(self, endpoint: Endpoint) -> None:
        """Note that something waits for an endpoint of this limit."""
        self._members[endpoint] = None

    @property
    def held(self) -> int:
        """How many slots may still be used."""
        self._drop_late(time.monotonic())
        return len(self._times)

    @property
    def unbegun(self) -> int:
        """How many leased deliveries wait here for slots."""
        count = 0
        for endpoint in list(self._members):
            count += len(endpoint.unbegun)
            if not endpoint.unbegun:
                del self._members[endpoint]
        return count

    @property
    def spare(self) -> int:
        """How many more deliveries may be leased; negative where more wait than there are slots."""
        return self.held - self.unbegun

    def next(self, now: float) -> float:
        """Return when the next slot may be used, maybe before `now`; inf without one."""
        self._drop_late(now)
        return self._times[0] if self._times else math.inf

    def spend(self) -> None:
        """Use the next slot."""
        if self._times:
            self._times.popleft()

    def wants(self, now: float) -> bool:
        """Tell whether to ask the cell: less than half of what may be taken ahead is left, and it can give some."""
        few = 1 if self.interval is None else max(1, AHEAD_SECONDS / self.interval / 2)
        return now >= self.next_ask and self.held < few

    def question(self, need: int) -> AskedSlots:
        """Return what to ask of the cell so that `need` requests may go out, and count it as asked."""
        want = max(0, need - self.held)
        answers = (self.accepted, self.refused, self.guess, self.latency)
        asked = AskedSlots(self.id, self.rate, self.burst, want, self._unused, *answers)
        self._unused = self.accepted = self.refused = 0
        return asked

    def take_back(self, asked: AskedSlots) -> None:
        """Count what was asked as not asked: the cell did not get it."""
        self._unused += asked.back
        self.accepted += asked.accepted
        self.refused += asked.refused

    def put_back(self) -> None:
        """Give every slot back with the next question."""
        self._unused += len(self._times)
        self._times.clear()

    def take(self, granted: GrantedSlots, now: float, *, all_of_it: bool) -> None:
        """Hold the slots that were granted just now; `all_of_it`: as many as were wanted."""
        self.interval, self._late, self.slowed = granted.interval, granted.late or 0.0, granted.slowed_to is not None
        if granted.interval is None:
            return
        self._times.extend(now + max(0.0, granted.first + i * granted.interval) for i in range(granted.slots))
        # Half of what may be taken ahead is asked for at a time.
        self.next_ask = now if all_of_it else now + max(0.002, granted.next - AHEAD_SECONDS / 2)

    def _drop_late(self, now: float) -> None:
        times, oldest = self._times, now - self._late
        while times and times[0] < oldest:
            times.popleft()
            self._unused += 1
