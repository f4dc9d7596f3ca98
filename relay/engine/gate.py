"""An endpoint's gate: its limits as this process holds them. Only an endpoint that has some has a gate.

It says how many deliveries may be leased, and whether the next may begin. A delivery whose slot is still to come waits
here for a moment; the gate then tells the endpoint's owner.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from outbox.subscriptions.rates import per_second
from relay.engine.slots import Slots
from relay.model.outcome import OVERLOADED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.engine.endpoint import Endpoint
    from relay.engine.window import Window
    from relay.model.outcome import Outcome

__all__ = ["HAND_BACK_SECONDS", "CapShare", "Gate"]

TICK_SECONDS = 0.002  # what comes within it goes out together
QUEUE_OF_SHARE_SECONDS = 0.1  # so much work is leased ahead of a share
HAND_BACK_SECONDS = 1.0  # what would wait for a slot for longer is not kept leased
REFUSALS_MAX = 4096  # deliveries whose refusals are remembered


class CapShare:
    """This process's share of a cap on requests under way: `slots`, for new requests until `usable_until`."""

    __slots__ = ("cap", "next_ask", "slots", "usable_until")

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.slots = 0
        self.usable_until = 0.0
        self.next_ask = 0.0

    def held(self, now: float) -> int:
        """Return how many requests may be under way; 0 once the share may have ended."""
        return self.slots if now < self.usable_until else 0


class Gate:
    """The limits of one endpoint. own: its rate, or what its receiver takes; tenant: the rate of its tenant."""

    __slots__ = ("_endpoint", "_refusals", "_thirsty", "_timer", "own", "share", "tenant")

    def __init__(self, endpoint: Endpoint, thirsty: dict[Endpoint, None]) -> None:
        self._endpoint = endpoint
        self._thirsty = thirsty
        self._timer: asyncio.TimerHandle | None = None
        self._refusals: dict[bytes, int] = {}
        self.own: Slots | None = None
        self.tenant: Slots | None = None
        self.share: CapShare | None = None

    def update(self, tenant_slots: Callable[[bytes], Slots]) -> None:
        """Follow the subscription's version; `tenant_slots` gives those of a tenant's cell."""
        told = self._endpoint.subscription
        if told.rate_limit or told.slowed_to or self.own is not None:
            self.own = self.own or Slots(told.id)
            self.own.limit(per_second(told.rate_limit) if told.rate_limit else None, told.rate_burst)
        limit = told.tenant_limit
        self.tenant = tenant_slots(limit.id) if limit else None
        if self.tenant is not None and limit is not None:
            self.tenant.limit(per_second(limit.rate_limit), limit.rate_burst)
        if self._endpoint.unbegun:
            self.enter()
        cap = told.max_in_flight
        if cap is None or self.share is None:
            self.share = None if cap is None else CapShare(cap)
        elif self.share.cap != cap:
            self.share.cap, self.share.next_ask = cap, 0.0

    @property
    def is_needed(self) -> bool:
        """Whether there is any limit."""
        return self.own is not None or self.tenant is not None or self.share is not None

    @property
    def is_slowed(self) -> bool:
        """Whether its receiver is sent what it was seen to take."""
        return self.own is not None and self.own.slowed

    @property
    def cells(self) -> tuple[Slots, ...]:
        """The slots that each request needs one of."""
        return tuple(slots for slots in (self.own, self.tenant) if slots is not None)

    def enter(self) -> None:
        """Note that a delivery waits."""
        for slots in self.cells:
            slots.enter(self._endpoint)

    def begin(self) -> None:
        """Use a slot of each cell for a request that begins."""
        for slots in self.cells:
            slots.spend()

    def lets_through(self) -> bool:
        """Tell whether a request may begin now. If not, the owner is told when one may."""
        now, share = time.monotonic(), self.share
        if share is not None and self._endpoint.sending >= share.held(now):
            self._thirsty[self._endpoint] = None
            return False
        at = max((slots.next(now) for slots in self.cells), default=0.0)
        if at <= now:
            return True
        if math.isinf(at):
            self._thirsty[self._endpoint] = None
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(max(TICK_SECONDS, at - now), self._wake)
        return False

    def leases_nothing_until(self, now: float) -> float:
        """Return until when nothing more may be leased, as far as is known here; before `now` where something may."""
        return self._asks_at(now, [slots for slots in self.cells if slots.spare <= 0])

    def dry_until(self, now: float) -> float:
        """Return until when nothing that waits here may begin; before `now` where slots are held for some of it."""
        return self._asks_at(now, [slots for slots in self.cells if not slots.held])

    def _asks_at(self, now: float, empty: Sequence[Slots]) -> float:
        """Return when these cells can be asked again, and the cap where no share is held; 0 for none of them."""
        share = self.share.next_ask if self.share is not None and not self.share.held(now) else 0.0
        return max([share, *(slots.next_ask for slots in empty)])

    def promise(self, wanted: int, left: dict[Slots, int]) -> int:
        """Return how many of the deliveries wanted may be leased, and count them off what is left of each cell."""
        cells = self.cells
        for slots in cells:
            wanted = min(wanted, left[slots] if slots in left else left.setdefault(slots, slots.spare))
        granted = max(0, wanted)
        for slots in cells:
            left[slots] -= granted
        return granted

    def capacity(self, window: Window) -> int:
        """Return how many deliveries the endpoint may have leased, whatever its cells say."""
        if self.share is None:
            return window.capacity
        held = min(window.size, self.share.held(time.monotonic()))
        queue = min(2 * held, window.work_of(held, QUEUE_OF_SHARE_SECONDS)) if window.is_measured else 0
        return min(window.capacity, held + queue)

    def note(self, outcome: Outcome) -> None:
        """Count an answer that is no refusal."""
        if self.own is not None and outcome.status is not None and outcome.status not in OVERLOADED:
            self.own.accepted += 1

    def note_refusal(self, delivery_id: bytes, window: Window) -> int:
        """Count a refusal; return how many this delivery has had. The first one begins with what the window guesses."""
        if self.own is None:
            self.own = Slots(self._endpoint.subscription.id)
            if self._endpoint.unbegun:
                self.own.enter(self._endpoint)
        if not self.own.slowed and not self.own.refused:
            self.own.guess = window.guess
        self.own.latency = window.latency
        self.own.refused += 1
        count = self._refusals.pop(delivery_id, 0) + 1
        self._refusals[delivery_id] = count
        if len(self._refusals) > REFUSALS_MAX:
            del self._refusals[next(iter(self._refusals))]
        return count

    def end_slowing(self) -> None:
        """Forget what the receiver takes: it is not slowed any more."""
        self._refusals.clear()
        if not self._endpoint.subscription.rate_limit:
            self.own = None

    def close(self) -> None:
        """Stop the timer; the gate is not used any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._thirsty.pop(self._endpoint, None)

    def _wake(self) -> None:
        self._timer = None
        self._endpoint.owner.wake(self._endpoint)
