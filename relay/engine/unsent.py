"""To which subscriptions this machine could not send, since when and why: none is charged, so no attempt says so."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from outbox.ids import text_id
from relay.model.outcome import OutcomeKind

if TYPE_CHECKING:
    from relay.engine.endpoint import Endpoint
    from relay.model.outcome import Outcome

__all__ = ["Unsent", "UnsentTo", "warn_held_for_good"]

log = logging.getLogger("relay.engine")

WARN_EVERY_SECONDS = 10.0
LONG_SECONDS = 60.0
"""After this time it is no passing shortage any more. A line is logged then, and each time that it has passed again.

What was not tried for so long says nothing any more: its deliveries are cancelled, or went out from elsewhere.
"""


@dataclass(slots=True)
class UnsentTo:
    """One subscription, by its id, and how its last attempt ended. `since` and `tried_at` are monotonic times."""

    subscription_id: bytes
    since: float
    error: str
    said_at: float
    tried_at: float


class Unsent:
    """Follows the outcomes `local` of one engine. Empty while all is well, which is what an attempt asks it."""

    def __init__(self) -> None:
        self._by_id: dict[bytes, UnsentTo] = {}
        self._warned_at = -WARN_EVERY_SECONDS

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def note(self, subscription_id: bytes, error: str) -> None:
        """Note an attempt that could not be sent."""
        now = time.monotonic()
        one = self._by_id.get(subscription_id)
        if one is None or now > one.tried_at + LONG_SECONDS:
            one = self._by_id[subscription_id] = UnsentTo(subscription_id, now, error, now, now)
        one.error, one.tried_at = error, now
        if now >= one.said_at + LONG_SECONDS:
            one.said_at = now
            name = text_id("sub", UUID(bytes=subscription_id))
            log.warning(
                "%s: for %.0f s this machine could not send to it, and no attempt is charged: %s;"
                " relay subscriptions check %s", name, now - one.since, error, name,
            )  # fmt: skip

    def forget(self, subscription_id: bytes) -> None:
        """Note that an attempt was sent, or that the subscription is gone."""
        self._by_id.pop(subscription_id, None)

    def warn(self, endpoint: Endpoint, outcome: Outcome) -> None:
        """Log that nothing was sent, since no attempt row says so.

        Log at most one line in ten seconds; for a missing key, one for each subscription.
        """
        now = time.monotonic()
        if outcome.kind == OutcomeKind.KEY_UNAVAILABLE:
            if now >= endpoint.warned_at + WARN_EVERY_SECONDS:
                endpoint.warned_at = now
                log.warning("%s; what is due is tried again every minute", outcome.error)
        elif now >= self._warned_at + WARN_EVERY_SECONDS:
            self._warned_at = now
            log.warning("this machine cannot send: %s; what is due is tried again every second", outcome.error)

    def for_long(self) -> list[UnsentTo]:
        """Return those to which nothing could be sent for LONG_SECONDS, the longest first."""
        until = time.monotonic() - LONG_SECONDS
        for one in [one for one in self._by_id.values() if one.tried_at < until]:
            self.forget(one.subscription_id)
        return sorted((one for one in self._by_id.values() if one.since <= until), key=lambda one: one.since)


def warn_held_for_good(endpoint: Endpoint) -> None:
    """Log that a person's hold sets an endpoint aside; at most a line in ten seconds."""
    now = time.monotonic()
    if now >= endpoint.warned_at + WARN_EVERY_SECONDS:
        endpoint.warned_at = now
        name = text_id("sub", UUID(bytes=endpoint.subscription.id))
        log.warning("%s is set aside: its held_until is infinity; relay subscriptions resume %s", name, name)
