"""Claim suspects (deliveries whose lease ended without a result): suspect → leased to this process, one at a time.

A suspect may have ended the process that held it. Each process sends one at a time, so that a crash is charged to the
delivery that caused it. Only crashes while it was alone make it a dead letter.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.engine.batches import admit_batches
from relay.engine.claim import admit
from relay.engine.due_map import DueMap
from relay.store.lease import new_lease

if TYPE_CHECKING:
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.lone_suspect import LoneSuspect
    from relay.engine.pace import Pace
    from relay.engine.sending import Sending
    from relay.store.store import Store

__all__ = ["SuspectClaim"]

ALONE_SECONDS = 0.2  # the next suspect waits for so long; by then this one would have ended its process


class SuspectClaim:
    """One engine's claims of suspects. `subscriptions`: those that are known to have suspects."""

    def __init__(self, store: Store, endpoints: Endpoints, sending: Sending, lone: LoneSuspect, pace: Pace) -> None:
        self._store = store
        self._endpoints = endpoints
        self._sending = sending
        self._lone = lone
        self._pace = pace
        self._began = 0.0
        self.subscriptions = DueMap(endpoints.tenant_of)

    def is_possible(self) -> bool:
        """Tell whether there is a suspect to begin, and the one before has had its time alone."""
        if not self.subscriptions:
            return False
        return self._lone.charged is None or time.monotonic() >= self._began + ALONE_SECONDS

    async def run(self) -> bool:
        """Claim one suspect at most (suspect → leased) and hand it over to be sent; tell whether there was one."""
        if not self.is_possible():
            return False
        await self._learn()
        asked = [i for i in self.subscriptions if self._endpoints.may_be_asked(i)]
        if asked and asked[0] in self._endpoints.batching:
            return await self._claim_batch(asked[0])
        asked = [i for i in asked if i not in self._endpoints.batching]
        began, lease, slack = time.monotonic(), new_lease(), self._pace.slack_seconds
        start_by = began + self._pace.start_within_seconds
        with self._pace.timing("claim of a suspect"):
            rows = await self._store.claim_suspect(asked, lease, self._lone.charged, slack) if asked else []
        if not rows:
            self.subscriptions.drop([i for i in self.subscriptions if i not in self._endpoints.batching])
            return False
        self.subscriptions.move_on(rows[0].subscription_id, more=True)
        self._began = began
        await admit(self._sending, self._store, rows, lease, start_by, suspect=True)
        return True

    async def _learn(self) -> None:
        """Read the subscriptions that are not known here: a suspect of a batch is claimed with all of it."""
        unknown = [i for i in self.subscriptions if self._endpoints.get(i) is None]
        if unknown:
            self._sending.update(await self._store.read_subscriptions(unknown))

    async def _claim_batch(self, subscription_id: bytes) -> bool:
        """Claim one batch of suspects, with the id that it had: what a crash left goes out again as it was."""
        began, lease, slack = time.monotonic(), new_lease(), self._pace.slack_seconds
        with self._pace.timing("claim of a suspect"):
            claimed = await self._store.claim_batches(
                subscription_id, 1, 0, lease, slack, suspects=True, former=self._lone.charged
            )
        self.subscriptions.move_on(subscription_id, more=bool(claimed))
        if claimed:
            self._began = began
        start_by = began + self._pace.start_within_seconds
        await admit_batches(self._sending, self._store, claimed, lease, start_by, suspect=True)
        return bool(claimed)
