"""One subscription's road out: its endpoint and keys, what is on the way, and how much more may be.

Every endpoint is isolated by two limits of its own. `sending` counts requests on the wire; the window bounds them and
follows the endpoint's health (up by one a success, halved by a failure to answer), so that one which hangs soon holds a
single slot. `leased` also counts what waits its turn here; it may be at most what the endpoint takes off in a second.

A route is closed while its subscription is paused, disabled, removed or held back, and at once when the endpoint asks
for it (410, Retry-After). The database has the same rule (statements.OPEN) for what is not leased yet.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from outbox.errors import OutboxError
from relay.message.envelope import Envelope
from relay.model.outcome import OutcomeKind
from relay.secrets.keyring import KeyUnavailableError

if TYPE_CHECKING:
    from relay.model.delivery import Delivery
    from relay.model.subscription import Subscription
    from relay.secrets.keyring import Keyring

__all__ = ["Route"]

WINDOW_START = 16
QUEUE_SECONDS = 1.0
QUEUE_MAX = 1024
UNHEALTHY = frozenset(
    {
        OutcomeKind.TIMEOUT,
        OutcomeKind.REFUSED,
        OutcomeKind.CONNECTION,
        OutcomeKind.DNS,
        OutcomeKind.TLS,
        OutcomeKind.AUTHORIZATION,
    }
)
UNWILLING = frozenset({429, 503})


class Route:
    """The sending side of one subscription at one version of its row."""

    __slots__ = ("_keyring", "_window_max", "answers", "closed_until", "envelope", "latency", "leased", "problem",
                 "queued", "sending", "subscription", "waiting", "window")  # fmt: skip

    def __init__(self, subscription: Subscription, window_max: int, keyring: Keyring) -> None:
        self._keyring = keyring
        self.leased = 0
        self.sending = 0
        self.answers = False  # whether the endpoint answered the last time it was asked
        self.queued = False  # whether it stands in line for a place among all requests
        self.waiting: deque[Delivery] = deque()
        self.latency = 0.0
        self._window_max = window_max
        self.window = min(WINDOW_START, window_max)
        self.update(subscription)

    def update(self, subscription: Subscription) -> None:
        """Take over a newer version; what is on the way keeps its counts."""
        self.subscription = subscription
        self.closed_until = time.monotonic() + subscription.closed_seconds
        self.problem: tuple[OutcomeKind, str] | None = None
        try:
            self.envelope = Envelope(subscription, self._keyring)
        except KeyUnavailableError as error:
            self.problem = (OutcomeKind.KEY_UNAVAILABLE, str(error))
        except OutboxError as error:
            self.problem = (OutcomeKind.UNSENDABLE, str(error))

    @property
    def is_open(self) -> bool:
        """Whether anything may be sent now."""
        return time.monotonic() >= self.closed_until

    def close(self, seconds: float) -> None:
        """Let nothing more begin for so long, unless a newer version of the subscription says otherwise."""
        self.closed_until = max(self.closed_until, time.monotonic() + seconds)

    @property
    def free(self) -> int:
        """How many more deliveries may be leased for this endpoint now."""
        if not self.is_open:
            return 0
        return self.window + self._queue_room() - self.leased

    @property
    def may_send(self) -> bool:
        """Whether a waiting delivery may go out now."""
        return bool(self.waiting) and self.sending < self.window

    def learn(self, kind: OutcomeKind, status: int | None, seconds: float) -> None:
        """Follow the endpoint's health from one outcome."""
        self.latency += (seconds - self.latency) / 8
        self.answers = status is not None or (self.answers and kind not in UNHEALTHY)
        if kind in UNHEALTHY or status in UNWILLING:
            self.window = max(1, self.window // 2)
        elif self.window < self._window_max:
            self.window += 1

    def _queue_room(self) -> int:
        if self.window < self._window_max:
            return 0
        return min(QUEUE_MAX, int(self.window * QUEUE_SECONDS / max(self.latency, 0.001)))
