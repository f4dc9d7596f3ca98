"""Sweep over all subscriptions in rotation, a slice at a time, without any hint.

It finds due rows and suspects that no hint names, notices changes that no claim brings, drops the endpoints of removed
subscriptions from memory, and ends the transactions of relays that stopped.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.engine.stuck_relays import StoppedRelays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.engine.due_map import DueMap
    from relay.engine.endpoint import Endpoint
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.sending import Sending
    from relay.store.rows import Swept
    from relay.store.store import Store

__all__ = ["Sweep"]

SLICE = 500
START = bytes(16)
READ_AT = 64  # changed subscriptions at once: each takes a tenth of a millisecond, for which all else waits
UNCLEAR_MAX = 128  # known ones that a turn did not meet, read at once to see whether they are gone
SLOW_SECONDS = 0.1  # a look at what is due is slow from here on: it reads a million dead rows, of a held snapshot
LOOK_SHARE = 10  # slow looks at what is due, two in a row, may take a tenth of the time: one may wait for a lock


class Sweep:
    """One engine's sweep. `position`: the subscription after which the next slice begins.

    found_many: whether most of the last slice have something due, as after an event that goes to very many. tell_test:
    called where a test message waits that somebody asked for. look_at: the monotonic time from which it looks again at
    what is due.
    """

    def __init__(self, store: Store, endpoints: Endpoints, sending: Sending, due: DueMap, suspects: DueMap) -> None:
        self._store = store
        self._endpoints = endpoints
        self._sending = sending
        self._due = due
        self._suspects = suspects
        self._stopped = StoppedRelays(store)
        self.look_at = self._look_seconds = 0.0  # _look_seconds: that the last such look took
        self._seen: set[bytes] = set()
        self._unmet: list[bytes] = []
        self.position = START
        self.found_many = False
        self.tell_test: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Sweep the next slice. Where looks at what is due are slow, most sweeps do without, and stay at their slice.

        The order matters: changes are read before endpoints count as sendable again, and only then are some
        forgotten.
        """
        self._sending.release_late()
        await self._stopped.end()
        looks = (began := time.monotonic()) >= self.look_at
        rows = await self._store.sweep(self.position, SLICE, for_due=looks)
        ended = time.monotonic()
        if self._store.test_waits:
            self.tell_test()
        await self._refresh(rows)
        due = [row.id for row in rows if row.due]
        self._due.add_all(due)
        self.found_many = len(due) > SLICE // 2
        self._due.add_all(self._endpoints.take_sendable_again())
        self._suspects.add_all(row.id for row in rows if row.suspects)
        if looks:
            seconds, self._look_seconds = min(ended - began, self._look_seconds), ended - began
            self.look_at = ended + (LOOK_SHARE * seconds if seconds > SLOW_SECONDS else 0.0)
            await self._forget(rows)
            self.position = START if len(rows) < SLICE else rows[-1].id

    def restart(self) -> None:
        """Begin a new turn at once, and forget what this one has met, and how long looks took."""
        self.look_at = self._look_seconds = 0.0
        self._seen.clear()
        self._unmet, self.position = [], START

    async def _refresh(self, rows: Sequence[Swept]) -> None:
        """Read changed subscriptions: those of this slice, and those with unbegun deliveries here."""
        stale = self._endpoints.outdated((row.id, row.version) for row in rows)
        unbegun = self._endpoints.with_unbegun()
        if unbegun:
            stale += await self._store.find_changed(unbegun)
        for at in range(0, len(stale), READ_AT):
            self._sending.update(await self._store.read_subscriptions(stale[at : at + READ_AT]))

    async def _forget(self, rows: Sequence[Swept]) -> None:
        """Drop endpoints that a whole turn of the sweep did not meet, if nothing will be sent to them.

        The sweep meets sendable subscriptions only. One that it did not meet but that looks sendable here is read
        again, a slice at a time: it may be removed, or may have been made during the turn.
        """
        self._seen.update(row.id for row in rows if self._endpoints.get(row.id))  # of the others nothing is known here
        if len(rows) < SLICE:
            self._unmet = [one.subscription.id for one in self._endpoints if self._may_be_gone(one)]
            self._seen.clear()
        asked, self._unmet = self._unmet[:SLICE], self._unmet[SLICE:]
        unclear = [i for i in asked if self._endpoints.may_be_asked(i)]
        unclear, later = unclear[:UNCLEAR_MAX], unclear[UNCLEAR_MAX:]
        self._unmet += later
        found = await self._store.read_subscriptions(unclear) if unclear else []
        self._sending.update(found)
        gone = set(unclear).difference(subscription.id for subscription in found)
        for subscription_id in asked:
            endpoint = self._endpoints.get(subscription_id)
            if endpoint and not endpoint.leased and (endpoint.needs_new_version or subscription_id in gone):
                self._endpoints.forget(subscription_id)

    def _may_be_gone(self, endpoint: Endpoint) -> bool:
        """Tell whether this turn did not meet an endpoint that has nothing leased and is not just held back."""
        if endpoint.leased or endpoint.subscription.id in self._seen:
            return False
        return endpoint.is_sendable or endpoint.needs_new_version
