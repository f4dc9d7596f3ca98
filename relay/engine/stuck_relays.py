"""Relays that stopped in the middle of a transaction: end what they hold, and say who keeps us waiting.

relay/store/turns.py has the bound, and what else ends such a transaction.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from relay.store import turns

if TYPE_CHECKING:
    from relay.store.store import Store

__all__ = ["StoppedRelays", "TurnWait"]

log = logging.getLogger("relay.engine")

LOOK_EVERY_SECONDS = 5.0
SAID_AFTER_SECONDS = 5.0
SAID_EVERY_SECONDS = 10.0


class StoppedRelays:
    """Looks every few seconds for relays whose transaction waits for them for too long."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next_look = 0.0

    async def end(self) -> None:
        """End the connections of those that there are, when it is time to look again."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_EVERY_SECONDS
        for holder in await turns.end_stopped(self._store, turns.STOPPED_SECONDS):
            log.warning("ended the connection of a relay that stopped in a transaction: %s", holder)


class TurnWait:
    """How long this process has waited for the turn to fan out; logs it, with who has the turn."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._since: float | None = None
        self._said_at = -SAID_EVERY_SECONDS

    def end(self) -> None:
        """Note that we had the turn."""
        self._since = None

    async def go_on(self) -> None:
        """Note that we did not get the turn; log it after some seconds, then every ten."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= SAID_AFTER_SECONDS and now - self._said_at >= SAID_EVERY_SECONDS:
            self._said_at = now
            holder = await turns.find_holder(self._store, "fan_out")
            log.warning("fan_out: waiting for %.0f s; the turn is with %s", now - self._since, holder or "nobody now")
