"""One subscription's endpoint as this process sees it: what its requests carry, what waits for it, its window.

Two limits isolate every endpoint. `sending` counts its requests on the wire; its window (window.py) bounds them.
`leased` also counts `unbegun`, what waits here; at most, that is what the endpoint can answer in a second.

An endpoint is sendable, which means that something may be sent to it, unless its subscription is paused, disabled,
removed or held back, or its breaker is open. What it asks for itself (410, Retry-After) holds at once. The database has
the same rule (SENDABLE in relay/store) for what is not leased.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from outbox.errors import OutboxError
from outbox.ids import text_id
from relay.engine.ailing import Ailing
from relay.engine.tenants import TenantUse
from relay.engine.window import Window
from relay.message.envelope import Envelope
from relay.model.outcome import OutcomeKind
from relay.secrets.keyring import KeyUnavailableError

if TYPE_CHECKING:
    from relay.engine.failures import Failures
    from relay.engine.gate import Gate
    from relay.model.alike import Receiver
    from relay.model.delivery import Delivery
    from relay.model.subscription import SubscriptionVersion
    from relay.secrets.keyring import Keyring

__all__ = ["Endpoint", "Owner", "Registry"]

log = logging.getLogger("relay.engine")


class Owner(Protocol):
    """Begins an endpoint's attempts when the room gives it a place."""

    def begin_next(self, endpoint: Endpoint) -> None:
        """Begin the attempt that waits first for this endpoint."""
        ...

    def wake(self, endpoint: Endpoint) -> None:
        """Let the endpoint's next attempts begin, as far as it and the room allow."""
        ...

    def give_back_unbegun(self, endpoint: Endpoint) -> None:
        """Give back what has not begun for this endpoint."""
        ...


class Registry(Protocol):
    """Knows the endpoints of this process, and holds back those of one receiver together."""

    def hold_alike(self, receiver: Receiver, seconds: float) -> None:
        """Begin no attempt for so many seconds for any endpoint of this receiver."""
        ...

    def note_answers(self, endpoint: Endpoint) -> None:
        """Note whether an endpoint answers; call it whenever that changed."""
        ...


class Endpoint:
    """The receiving side of one subscription, at one version of its row."""

    __slots__ = ("_keyring", "_sendable_from", "ailing", "bytes", "envelope", "failing", "failures", "gate", "huge",
                 "leased", "owner", "problem", "queued", "registry", "sending", "subscription", "tenant", "unbegun",
                 "warned_at", "window")  # fmt: skip

    def __init__(
        self,
        subscription: SubscriptionVersion,
        window_max: int,
        keyring: Keyring,
        owner: Owner,
        tenant: TenantUse | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._keyring = keyring
        self.registry = registry  # that knows it; None: it is alone
        self.owner = owner  # the sending side of its engine
        self.tenant = tenant or TenantUse()  # shared with the tenant's other endpoints
        self.window = Window(window_max)
        self.gate: Gate | None = None  # of an endpoint with limits (endpoint_registry.py)
        self.unbegun: list[Delivery] = []  # a deque that is empty takes 700 bytes more, ten thousand times
        self.leased = 0
        self.bytes = 0  # of the bodies of what is leased, and how many huge ones there are: see byte_shares.py
        self.huge = 0
        self.sending = 0
        self.queued = False  # whether it is in a queue of the room
        self.warned_at = -math.inf  # when the log last said that nothing can be sent to it
        self.failing = False  # whether the log said last that it fails; failures: what was said (failure_log.py)
        self.failures: Failures | None = None
        self.ailing: Ailing | None = None  # what has to be written of its health (ailing.py); None while it answers
        self.update(subscription)

    def update(self, subscription: SubscriptionVersion) -> None:
        """Use another version of the subscription; what is under way keeps its counts."""
        self.subscription = subscription
        self._sendable_from = time.monotonic() + subscription.sendable_in_seconds
        if subscription.health:
            self.ailing = Ailing()
        self.problem: tuple[OutcomeKind, str] | None = None
        try:
            self.envelope = Envelope(subscription, self._keyring)
        except KeyUnavailableError as error:
            self.problem = (OutcomeKind.KEY_UNAVAILABLE, str(error))
        except OutboxError as error:
            self.problem = (OutcomeKind.UNSENDABLE, str(error))
        except Exception as error:  # noqa: BLE001 - it is logged, and one subscription must not end the process
            self.refuse(error)

    def refuse(self, error: Exception) -> None:
        """Send nothing to this version of the subscription, since an error of our own came up when it was read.

        The log says where. The error's text stays out of it, because it may repeat a secret.
        """
        kind, name = type(error).__name__, text_id("sub", UUID(bytes=self.subscription.id))
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
        log.error("%s: nothing can be sent to it: %s inside the relay, at %s", name, kind, where)
        self.problem = (OutcomeKind.UNSENDABLE, f"{kind} inside the relay; see its log")

    @property
    def answers(self) -> bool:
        """Whether the endpoint answered the last time it was asked, and does so within a second or two."""
        return self.window.proven

    @property
    def is_sendable(self) -> bool:
        """Whether anything may be sent now."""
        return time.monotonic() >= self._sendable_from

    @property
    def is_served(self) -> bool:
        """Whether something may be sent now: anything, or the probe that waits here."""
        return self.is_sendable or any(delivery.probe for delivery in self.unbegun)

    @property
    def needs_new_version(self) -> bool:
        """Whether nothing may be sent until there is another version of the subscription."""
        return math.isinf(self._sendable_from)

    def send_nothing_for(self, seconds: float) -> None:
        """Begin no attempt for so many seconds, unless another version of the subscription says otherwise."""
        self._sendable_from = max(self._sendable_from, time.monotonic() + seconds)

    def timeout_of(self, delivery: Delivery) -> float:
        """Return how long an attempt of a delivery may take: as is set now, but no longer than its lease is for."""
        return min(delivery.timeout_seconds, self.subscription.timeout_seconds)

    @property
    def free(self) -> int:
        """How many more deliveries may be leased for this endpoint now; negative after its window shrank."""
        if not self.is_sendable:
            return 0
        capacity = self.window.capacity if self.gate is None else self.gate.capacity(self.window)
        return capacity - self.leased

    @property
    def may_send(self) -> bool:
        """Whether a delivery that has not begun may go out now."""
        if not self.unbegun or self.sending >= self.window.size:
            return False
        return self.gate is None or self.gate.lets_through()
