"""Follow the breakers in the database: take note of what other relays saw, and probe those that are due.

relay/store/breaker.py has the states. A relay learns within a second that a breaker opened or closed elsewhere. What it
misses costs an empty claim, and is read again after a minute.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from outbox.ids import text_id
from relay.engine.ailing import Ailing
from relay.engine.batches import admit_batches
from relay.engine.claim import delivery_of
from relay.store.lease import new_lease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.lone_suspect import LoneSuspect
    from relay.engine.pace import Pace
    from relay.engine.room import Room
    from relay.engine.sending import Sending
    from relay.store.probes import Noted, Probe
    from relay.store.store import Store

__all__ = ["Breakers"]

log = logging.getLogger("relay.engine")

EVERY_SECONDS = 1.0
PROBES_MAX = 64  # begun at once by one process
LOOK_BACK_SECONDS = 5.0  # for settlements that committed after a later one


class Breakers:
    """One engine's view of the breakers."""

    def __init__(
        self, store: Store, endpoints: Endpoints, room: Room, sending: Sending, lone: LoneSuspect, pace: Pace
    ) -> None:
        self._store = store
        self._endpoints = endpoints
        self._room = room
        self._sending = sending
        self._lone = lone
        self._pace = pace
        self._since = 0.0
        self._next = 0.0

    def restart(self) -> None:
        """Forget what was seen: the data are another server's."""
        self._since = self._next = 0.0

    async def run(self) -> bool:
        """Look once a second; tell whether anything was sent."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + EVERY_SECONDS
        noted, newest = await self._store.read_noted(self._since - LOOK_BACK_SECONDS)
        self._since = newest
        await self._take_over(noted)
        wanting = (one.subscription_id for one in noted if one.probe)
        return await self._probe([i for i in wanting if self._endpoints.may_be_probed(i)])

    async def _take_over(self, noted: Sequence[Noted]) -> None:
        """Read again the subscriptions whose breaker is known here in another state."""
        turned = []
        for one in noted:
            endpoint = self._endpoints.get(one.subscription_id)
            if endpoint is None:
                continue
            if endpoint.ailing is not None and one.failing:
                endpoint.ailing.note_failure()
            elif endpoint.ailing is None and (one.failing or one.ailing):
                endpoint.ailing = Ailing()
            if (endpoint.subscription.health == "open") is not one.open:
                turned.append(one.subscription_id)
                name = text_id("sub", UUID(bytes=one.subscription_id))
                if one.open:
                    log.warning("%s: its breaker is open; it is probed until it answers, and what is due waits", name)
                else:
                    log.info("%s: its breaker is closed again", name)
        if turned:
            self._sending.update(await self._store.read_subscriptions(turned))

    async def _probe(self, ids: Sequence[bytes]) -> bool:
        """Claim one delivery for each of these that nobody else probes: due → leased."""
        room = min(PROBES_MAX, self._room.free)
        if not ids or room <= 0:
            return False
        began, lease, slack = time.monotonic(), new_lease(), self._pace.slack_seconds
        start_by = began + self._pace.start_within_seconds
        with self._pace.timing("claim of probes"):
            probes = await self._store.claim_probes(ids, room, lease, slack, may_be_suspect=self._lone.charged is None)
        versions = {(probe.row.subscription_id, probe.row.version) for probe in probes}
        await self._sending.refresh(versions, self._store.read_subscriptions)
        batching = self._endpoints.batching
        self._sending.admit([
            delivery_of(one.row, lease, start_by, suspect=one.suspect, probe=True)
            for one in probes if one.row.subscription_id not in batching
        ])  # fmt: skip
        # A batch may turn out to be a suspect too, and of those one is sent: the one that is known goes first.
        for one in sorted(probes, key=lambda probe: not probe.suspect):
            if one.row.subscription_id in batching:
                await self._probe_with_batch(one, lease, slack, start_by)
        return bool(probes)

    async def _probe_with_batch(self, probe: Probe, lease: int, slack: float, start_by: float) -> None:
        """Send the batch of this delivery; without one, a batch of it alone. Where others have some of it, leave it."""
        row, suspect = probe.row, probe.suspect
        claim = partial(self._store.claim_batches, row.subscription_id, 1, 0, lease, slack, lead=row.id)
        claimed = await claim(suspects=suspect)
        if not claimed and not suspect and self._lone.charged is None:
            # The relay that had the others of its batch may have ended: then all of it is a suspect.
            claimed, suspect = await claim(suspects=True), True
        if not claimed:
            self._sending.give_back(delivery_of(row, lease, start_by, suspect=probe.suspect))
        await admit_batches(self._sending, self._store, claimed, lease, start_by, suspect=suspect, probe=True)
