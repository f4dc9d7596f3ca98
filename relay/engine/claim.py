"""Claim due deliveries (retries, backlog): due → leased to this process."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from relay.engine.due_marks import DueMarks
from relay.model.delivery import HUGE_BYTES, SMALL_BYTES, Delivery
from relay.store.lease import new_lease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.engine.byte_shares import ByteShare
    from relay.engine.due_map import DueMap
    from relay.engine.endpoint import Endpoint
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.fairness import Grants
    from relay.engine.pace import Pace
    from relay.engine.room import Room
    from relay.engine.sending import Sending
    from relay.engine.tenants import TenantUse
    from relay.store.rows import Leased
    from relay.store.store import Store

__all__ = ["Claim", "admit", "delivery_of"]

ROWS_MAX = 500
SLOTS_MAX = 2 * ROWS_MAX  # subscriptions of one claim; the others are next in turn
UNPROVEN_MAX = 64  # of these such as do not answer: new events wait for a claim, so it must not name thousands
UNREAD_MAX = 64  # subscriptions that one step reads before it claims for them
UNREAD_LOOK_MAX = 256  # among which a step looks for these
WORTHWHILE = 128  # free slots that make another claim worth its statement while deliveries are under way
UNPROVEN_SECONDS = 0.001  # pause for each unproven endpoint of a claim, so that hundreds of them do not slow the others
UNPROVEN_LOOK_SECONDS = 0.00004  # the same for each one of the due map, after a look that found no unproven one


class Slot(NamedTuple):
    """What one subscription may get in a claim: rows, and bytes."""

    subscription_id: bytes
    rows: int
    share: ByteShare


class Claim:
    """One engine's claims, for the subscriptions in its due map."""

    def __init__(
        self, store: Store, endpoints: Endpoints, room: Room, sending: Sending, due: DueMap, pace: Pace
    ) -> None:
        self._store = store
        self._endpoints = endpoints
        self._room = room
        self._sending = sending
        self._due = due
        self._pace = pace
        self._unproven_from = 0.0
        self.marks = DueMarks()

    def is_possible(self) -> bool:
        """Tell whether a claim could lease anything for an endpoint that answers."""
        return self._room.free > 0 and any(slot.share.bytes for slot in self._slots(unproven_too=False))

    def is_worthwhile(self) -> bool:
        """Tell whether enough slots are free; rows that are claimed one by one cost a statement each."""
        slots = self._slots()
        return bool(slots) and (
            self._sending.idle or sum(slot.rows for slot in slots if slot.share.bytes) >= WORTHWHILE
        )

    async def run(self) -> bool:
        """Claim one batch (due → leased) and hand it over to be sent; tell whether there were any."""
        self._due.drop([i for i in islice(self._due, SLOTS_MAX) if not self._endpoints.may_be_asked(i)])
        await self._read_unread()
        room, free_bytes, slots = min(ROWS_MAX, self._pace.rows, self._room.free), self._bytes(), self._slots()
        self._pause_unproven(slots)
        if not slots or room <= 0:
            return False
        began, lease, slack = time.monotonic(), new_lease(), self._pace.slack_seconds
        start_by = began + self._pace.start_within_seconds  # as the lease was asked for, whatever is measured meanwhile
        asked, shares = [(slot.subscription_id, slot.rows) for slot in slots], [slot.share for slot in slots]
        ids = [slot.subscription_id for slot in slots]
        marks = self.marks.of(ids, began)
        with self._pace.timing("claim"):
            rows = await self._store.claim(asked, room, free_bytes, lease, shares, slack, marks)
        self.marks.note_claim(rows, dict(zip(ids, marks, strict=True)), began, time.monotonic())
        self._rotate(slots, rows, full=len(rows) == room or 0 < free_bytes <= sum(map(_weight, rows)))
        if rows:
            self._pace.note_answer(sum(row.event.size for row in rows if row.event), time.monotonic() - began)
            if time.monotonic() > start_by:
                self._pace.note_late()
            await admit(self._sending, self._store, rows, lease, start_by)
        else:
            await self._recheck(ids)
        return bool(rows)

    def _pause_unproven(self, slots: Sequence[Slot]) -> None:
        """Begin a pause in which no unproven endpoint is looked for: the longer, the more work this look was."""
        unproven = sum(not self._endpoints.answers(slot.subscription_id) for slot in slots)
        if (now := time.monotonic()) >= self._unproven_from:
            self._unproven_from = now + (UNPROVEN_SECONDS * unproven or UNPROVEN_LOOK_SECONDS * len(self._due))

    async def _read_unread(self) -> None:
        """Read the next subscriptions whose tenant is not known here, if they may have anything.

        They get nothing before: thousands of them, as after a start, would take all the room, and the turns of others.
        """
        if self._room.free <= 0:
            return
        unproven_too = self._room.takes_unproven and time.monotonic() >= self._unproven_from
        looked_at = list(islice(self._due.unread, UNREAD_LOOK_MAX))
        unread = [i for i in looked_at if unproven_too or self._endpoints.answers(i)][:UNREAD_MAX]
        if unread:
            self._sending.update(await self._store.read_subscriptions(unread))
            self._due.drop([i for i in unread if self._endpoints.get(i) is None])  # they are gone
        self._due.rejoin(unread or looked_at)  # where nobody may be read now, the next ones are looked at the next time

    def _bytes(self) -> int:
        return min(self._room.free_bytes, self._pace.bytes)

    def _rotate(self, slots: Sequence[Slot], rows: Sequence[Leased], *, full: bool) -> None:
        """Put those that were served last, and drop those that have nothing more.

        Where the room ended the claim (`full`), those after the last one served keep their places: it is their turn.
        So does who was asked for small deliveries only, and had none.
        """
        got = Counter(row.subscription_id for row in rows)
        weights: Counter[bytes] = Counter()
        for row in rows:
            weights[row.subscription_id] += _weight(row)
        last = max((place for place, slot in enumerate(slots) if got[slot.subscription_id]), default=len(slots))
        for place, (subscription_id, count, share) in enumerate(slots):
            served = got[subscription_id]
            if not served and ((full and place > last) or not share.bytes):
                continue
            more = full or served == count or 0 < share.bytes <= weights[subscription_id]
            self._due.move_on(subscription_id, more=more)

    async def _recheck(self, ids: Sequence[bytes]) -> None:
        """Read again the subscriptions of an empty claim: the due map would keep naming one that is paused or held."""
        changed = await self._store.find_changed([(i, self._endpoints.version_of(i)) for i in ids])
        if changed:
            self._sending.update(await self._store.read_subscriptions(changed))

    def _slots(self, *, unproven_too: bool = True) -> list[Slot]:
        """Return what the due map's subscriptions may have, in rotation; one that was forgotten here has one slot.

        A tenant may have all that it gets for endpoints that do not answer, while thousands of these have something
        due: once one of them is promised nothing, the tenant's others are passed over.
        """
        grants, slots = self._room.grants(len(self._due)), []
        unproven_too = unproven_too and self._room.takes_unproven and time.monotonic() >= self._unproven_from
        unproven_left = UNPROVEN_MAX if unproven_too else 0
        full: set[TenantUse] = set()
        for subscription_id in self._due.without(frozenset() if unproven_left else self._endpoints.unproven):
            if subscription_id in self._endpoints.batching:  # claimed in batches.py
                continue
            endpoint = self._endpoints.get(subscription_id)
            answers = endpoint.answers if endpoint else self._endpoints.answers(subscription_id)
            if not answers and (unproven_left <= 0 or (endpoint and endpoint.tenant in full)):
                continue
            promised = grants.promise(endpoint) if endpoint else self._promise_unread(grants, subscription_id)
            if promised > 0 and (share := grants.promise_bytes(endpoint)):
                slots.append(Slot(subscription_id, min(ROWS_MAX, promised), share))
                unproven_left -= not answers
                if len(slots) == SLOTS_MAX:
                    break
            elif endpoint and not answers and promised <= 0 and endpoint.gate is None and _could_have(endpoint):
                full.add(endpoint.tenant)
        return slots

    def _promise_unread(self, grants: Grants, subscription_id: bytes) -> int:
        """Promise what one may have that is not known here any more, or not yet: of the latter nothing can be said."""
        tenant = self._due.tenant_of(subscription_id)
        if tenant is None:
            return 0
        use, answers = self._room.tenants.use_of(tenant), self._endpoints.answers(subscription_id)
        return grants.promise_unread(use, answers=answers)


async def admit(
    sending: Sending, store: Store, rows: Sequence[Leased], lease: int, start_by: float, *, suspect: bool = False
) -> None:
    """Hand claimed rows over to be sent. `start_by`: the monotonic time after which none may begin."""
    await sending.refresh({(row.subscription_id, row.version) for row in rows}, store.read_subscriptions)
    sending.admit([delivery_of(row, lease, start_by, suspect=suspect) for row in rows])


def _could_have(endpoint: Endpoint) -> bool:
    """Tell whether nothing of its own keeps an endpoint from a first lease."""
    return not endpoint.leased and endpoint.is_sendable


def _weight(row: Leased) -> int:
    """Return what a row counted in the bounds of its claim."""
    return row.event_bytes if SMALL_BYTES < row.event_bytes <= HUGE_BYTES else 0


def delivery_of(row: Leased, lease: int, start_by: float, *, suspect: bool, probe: bool = False) -> Delivery:
    """Return the delivery of a row that was leased; this process will send it."""
    return Delivery(
        row.id, row.event_seq, row.subscription_id, row.attempts, lease, row.event, start_by, suspect, row.unreadable,
        row.lane, probe, timeout_seconds=row.timeout_seconds,
    )  # fmt: skip
