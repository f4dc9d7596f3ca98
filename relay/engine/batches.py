"""Claim batches, for subscriptions that have them: due → leased to this process, several deliveries as one request.

A batch is one Delivery to whatever counts and limits: it has the batch's id, and its `members` are what is settled.
"""

from __future__ import annotations

import asyncio
import math
import time
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from outbox.ids import batch_id_of
from relay.message.evaluator_process.evaluator import EvaluatorError
from relay.message.evaluator_process.large_bodies import TooLateError
from relay.message.formats import FormatError
from relay.message.transformation.budget import TransformationError
from relay.model.delivery import Delivery, batch_of
from relay.model.outcome import Outcome, OutcomeKind
from relay.store.batch_plan import BATCH_BYTES
from relay.store.lease import new_lease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.engine.clock import DatabaseClock
    from relay.engine.due_map import DueMap
    from relay.engine.endpoint import Endpoint
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.pace import Pace
    from relay.engine.room import Room
    from relay.engine.sending import Sending
    from relay.engine.transforming import Transforming
    from relay.http.sender import Sender
    from relay.message.envelope import Envelope
    from relay.model.event import EventParts
    from relay.store.batches import ClaimedBatch
    from relay.store.store import Store

__all__ = ["NO_EVENT", "Batches", "Unfit", "admit_batches", "send_batch"]

ASKED_MAX = 500  # subscriptions in one look
ROWS_MAX = 1000  # deliveries in one claim
LOOK_SECONDS = 0.005  # between two looks at a subscription whose batch is not full
PAUSE_SECONDS_MAX = 0.5  # until the next look, where claim after claim finds a batch of which another has some
NO_EVENT = "the event's row is gone; it was removed by hand while a delivery of it was outstanding"


class Wait(NamedTuple):
    """When to look at a subscription again: at `full_from` if something became due, at `over_at` in any case."""

    full_from: float
    over_at: float


class Batches:
    """One engine's claims of batches, for the subscriptions in its due map that have them."""

    def __init__(
        self, store: Store, endpoints: Endpoints, room: Room, sending: Sending, due: DueMap, pace: Pace
    ) -> None:
        self._store = store
        self._endpoints = endpoints
        self._room = room
        self._sending = sending
        self._due = due
        self._pace = pace
        self._waits: dict[bytes, Wait] = {}
        self._pauses: dict[bytes, float] = {}  # seconds after the last claim, where that found nothing to lease
        self.left: dict[bytes, int] = {}  # how many deliveries of each fan_out left due here; a hint

    @property
    def rest_until(self) -> float:
        """When to look again; inf where no batch waits to be full. What has no room is looked at when it has."""
        return min((w.full_from if self._has_room(i) else w.over_at for i, w in self._waits.items()), default=math.inf)

    @property
    def gathers_any(self) -> bool:
        """Whether a batch waits to be full."""
        return bool(self._waits)

    def _has_room(self, subscription_id: bytes) -> bool:
        """Tell whether something of this subscription became due that could be leased."""
        endpoint = self._endpoints.get(subscription_id)
        return subscription_id in self._due and endpoint is not None and endpoint.free > 0 and self._room.free > 0

    def is_gathering(self, subscription_id: bytes) -> bool:
        """Tell whether this subscription had less than a full batch due when it was looked at."""
        return subscription_id in self._waits

    def clear(self) -> None:
        """Forget what waits: the data are another server's."""
        self._waits.clear()
        self._pauses.clear()
        self.left.clear()

    def is_possible(self) -> bool:
        """Tell whether a batch could be claimed now."""
        return bool(self._endpoints.batching) and self._room.free > 0 and bool(self._open(time.monotonic()))

    async def run(self) -> bool:
        """Claim what is ready, in the turns of the due map; tell whether there was any."""
        if not self._endpoints.batching and not self._waits:
            return False
        now = time.monotonic()
        for i in [i for i, wait in self._waits.items() if now >= wait.over_at]:
            del self._waits[i]
            self._due.add(i)
        self._due.drop([i for i in self._endpoints.batching if i in self._due and not self._endpoints.may_be_asked(i)])
        asked = self._open(now)
        if not asked or self._room.free <= 0:
            return False
        with self._pace.timing("look at batches"):
            seen = {one.subscription_id: one for one in await self._store.find_ready(asked)}
        claimed = False
        for subscription_id in asked:
            one = seen.get(subscription_id)
            if one is not None and one.ready:
                self._waits.pop(subscription_id, None)
                claimed = await self._claim(subscription_id) or claimed
                continue
            self._due.move_on(subscription_id, more=False)
            self._waits.pop(subscription_id, None)
            if one is None:
                self.left.pop(subscription_id, None)
                self._pauses.pop(subscription_id, None)
            else:
                now = time.monotonic()
                self._waits[subscription_id] = Wait(now + LOOK_SECONDS, now + max(one.wait_seconds, LOOK_SECONDS))
        return claimed

    def _open(self, now: float) -> list[bytes]:
        """Return the subscriptions that are due for a look and may have something leased, in turn."""
        batching, found = self._endpoints.batching, []
        for i in self._due:
            if i in batching and (i not in self._waits or now >= self._waits[i].full_from):
                endpoint = self._endpoints.get(i)
                if endpoint is not None and endpoint.free > 0:
                    found.append(i)
        return list(islice(found, ASKED_MAX))

    async def _claim(self, subscription_id: bytes) -> bool:
        """Claim as many batches of one subscription as it may have, and hand them over to be sent."""
        endpoint = self._endpoints.get(subscription_id)
        each = (endpoint.subscription.batch_events if endpoint else None) or ROWS_MAX
        grants = self._room.grants(len(self._endpoints.batching))
        most = min(grants.promise(endpoint), self._room.free, max(1, ROWS_MAX // each)) if endpoint else 0
        share = grants.promise_bytes(endpoint)
        if most <= 0 or share is None or not share.bytes:
            return False
        budget = min(share.bytes, self._pace.bytes)
        began, lease, slack = time.monotonic(), new_lease(), self._pace.slack_seconds
        start_by = began + self._pace.start_within_seconds
        with self._pace.timing("claim of batches"):
            claimed = await self._store.claim_batches(subscription_id, most, budget, lease, slack)
        ended = time.monotonic()
        rows = [row for one in claimed for row in one.rows]
        if (left := self.left.pop(subscription_id, 0) - len(rows)) > 0:
            self.left[subscription_id] = left
        bytes_left = budget - sum(row.event_bytes for row in rows)
        # A claim that ended at one of its bounds may have left full batches.
        more = len(claimed) >= most or len(rows) > ROWS_MAX - each or (bool(claimed) and bytes_left < BATCH_BYTES)
        self._due.move_on(subscription_id, more=more)
        pause = self._pause_seconds(subscription_id, found=bool(claimed))
        if not more:  # what is left is soon looked at; until then it holds up no batch that is born
            self._waits[subscription_id] = Wait(ended + pause, ended + pause)
        if ended > start_by:
            self._pace.note_late()
        await admit_batches(self._sending, self._store, claimed, lease, start_by)
        return bool(claimed)

    def _pause_seconds(self, subscription_id: bytes, *, found: bool) -> float:
        """Return how long after this claim to look again; longer each time that one finds nothing to lease."""
        pause = min(2 * self._pauses.pop(subscription_id, LOOK_SECONDS), PAUSE_SECONDS_MAX)
        if found:
            return LOOK_SECONDS
        self._pauses[subscription_id] = pause
        return pause


async def admit_batches(
    sending: Sending,
    store: Store,
    claimed: Sequence[ClaimedBatch],
    lease: int,
    start_by: float,
    *,
    suspect: bool = False,
    probe: bool = False,
) -> None:
    """Hand claimed batches over to be sent."""
    await sending.refresh({(row.subscription_id, row.version) for _, rows in claimed for row in rows[:1]},
                          store.read_subscriptions)  # fmt: skip
    sending.admit([_delivery_of(one, lease, start_by, suspect=suspect, probe=probe) for one in claimed])


def _delivery_of(claimed: ClaimedBatch, lease: int, start_by: float, *, suspect: bool, probe: bool) -> Delivery:
    identity, rows = claimed
    return batch_of([
        Delivery(row.id, row.event_seq, row.subscription_id, row.attempts, lease, row.event, start_by, suspect,
                 row.unreadable, None, probe, identity, row.timeout_seconds)
        for row in rows
    ])  # fmt: skip


class Unfit(NamedTuple):
    """A batch that was not sent: some of its members have no body. The others go in another one, with a new id."""

    members: list[tuple[Delivery, Outcome]]
    others: list[Delivery]


async def send_batch(
    sender: Sender, endpoint: Endpoint, batch: Delivery, transforming: Transforming, clock: DatabaseClock
) -> Outcome | Unfit | None:
    """Send a batch as one request; None where its time to begin passed, or it was cut, before all were transformed.

    Raises NotStartedError where a transformation needs a process that cannot be started.
    """
    envelope, timeout_seconds = endpoint.envelope, endpoint.timeout_of(batch)
    try:
        found = [(member, await _event_of(endpoint, envelope, member, transforming)) for member in batch.members]
    except (asyncio.CancelledError, TooLateError):  # no byte was sent
        return None
    except EvaluatorError as error:
        return Outcome(OutcomeKind.INTERNAL, None, 0, str(error), sent=False)
    events = [made for _, made in found if not isinstance(made, Outcome)]
    if unfit := [(member, made) for member, made in found if isinstance(made, Outcome)]:
        return Unfit(unfit, [member for member, made in found if not isinstance(made, Outcome)])
    if envelope.needs_time and time.monotonic() > batch.start_by:
        return None
    batch_id, timestamp = batch_id_of(batch.id), clock.timestamp()
    return await envelope.send_batch(sender, events, batch_id, timestamp, timeout_seconds, batch.attempts)


async def _event_of(
    endpoint: Endpoint, envelope: Envelope, member: Delivery, transforming: Transforming
) -> EventParts | Outcome:
    """Return the event as it goes into the body, or why it cannot."""
    if member.unreadable is not None:
        return Outcome(OutcomeKind.PAYLOAD_UNREADABLE, None, 0, member.unreadable, sent=False)
    if member.event is None:
        return Outcome(OutcomeKind.EVENT_GONE, None, 0, NO_EVENT, sent=False)
    try:
        return envelope.fit(await transforming.make(endpoint, envelope, member.event, member.start_by))
    except TransformationError as error:
        return Outcome(OutcomeKind.TRANSFORMATION_FAILED, None, 0, f"transformation: {error}", sent=False)
    except FormatError as error:
        return Outcome(OutcomeKind.UNFORMATTED, None, 0, str(error), sent=False)
