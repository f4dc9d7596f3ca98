"""claim: due deliveries (retries, backlog) and, one at a time, suspects → leased to this process."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from outbox.ids import event_id_of
from relay.model.delivery import Delivery, Event
from relay.store.statements import START_WITHIN_SECONDS
from relay.store.store import new_lease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.engine.outgoing import Outgoing
    from relay.store.rows import Leased
    from relay.store.store import Store

__all__ = ["Claim"]

ROWS_MAX = 500
WORTHWHILE = 128  # free slots that make another claim worth its statements while much is on the way
STRANGER_SECONDS = 0.001  # of rest for each stranger asked for: hundreds of them must not slow the round of the others
SUSPECT_ALONE_SECONDS = 0.2  # a suspect that has not ended its process by then no longer keeps the next one waiting


class Claim:
    """One process's claims, for the subscriptions in its due map and its map of suspects."""

    def __init__(self, store: Store, outgoing: Outgoing, due: dict[bytes, None], suspects: dict[bytes, None]) -> None:
        self._store = store
        self._outgoing = outgoing
        self._due = due
        self._suspects = suspects
        self._suspect_began = 0.0
        self._strangers_from = 0.0

    def is_possible(self) -> bool:
        """Whether a subscription in the due map has room whose endpoint answers; the others delay nobody's events."""
        return self._outgoing.room > 0 and any(self._answers(subscription_id) for subscription_id, _ in self._slots())

    def is_worthwhile(self) -> bool:
        """Whether enough is free for what is due; rows claimed one by one would cost a statement each."""
        if self._suspects and self._suspect_may_begin():
            return True
        slots = self._slots()
        return bool(slots) and (self._outgoing.idle or sum(count for _, count in slots) >= WORTHWHILE)

    async def run(self) -> bool:
        """due → leased; tell whether there were any."""
        self._forget_closed()
        room, byte_room, slots = min(ROWS_MAX, self._outgoing.room), self._outgoing.byte_room, self._slots()
        if not slots or room <= 0:
            return False
        began, lease = time.monotonic(), new_lease()
        strangers = sum(not self._answers(subscription_id) for subscription_id, _ in slots)
        self._strangers_from = max(self._strangers_from, began + STRANGER_SECONDS * strangers)
        rows = await self._store.claim(slots, room, byte_room, lease)
        got = Counter(row.subscription_id for row in rows)
        full = len(rows) == room or sum(len(row.body or b"") for row in rows) >= byte_room
        for subscription_id, count in slots:
            self._due.pop(subscription_id)
            if full or got[subscription_id] == count:
                self._due[subscription_id] = None  # there may be more: to the back of the rotation
        if rows:
            await self._admit(rows, lease, began, suspect=False)
        else:
            await self._look_why([subscription_id for subscription_id, _ in slots])
        return bool(rows)

    async def run_suspect(self) -> bool:
        """suspect → leased, one at a time, so that only the one which ends the process is charged for it."""
        if not self._suspects or not self._suspect_may_begin():
            return False
        began, lease = time.monotonic(), new_lease()
        asked = [subscription_id for subscription_id in self._suspects if self._outgoing.may_send_to(subscription_id)]
        rows = await self._store.claim_suspect(asked, lease, self._outgoing.suspect) if asked else []
        if not rows:
            self._suspects.clear()
            return False
        self._suspects[rows[0].subscription_id] = self._suspects.pop(rows[0].subscription_id)
        self._suspect_began = began
        await self._admit(rows, lease, began, suspect=True)
        return True

    async def _look_why(self, ids: Sequence[bytes]) -> None:
        """Nothing of these was to be had. A hint knows nothing of pause and hold, or they would be asked for again."""
        routes = self._outgoing.routes
        known = [(i, routes[i].subscription.version if i in routes else 0) for i in ids]
        changed = await self._store.changed(known)
        if changed:
            self._outgoing.update(await self._store.subscriptions(changed))

    def _forget_closed(self) -> None:
        """Drop what may not be sent to from the due map, which every look reads; `Outgoing.reopened` names it again."""
        for subscription_id in [i for i in self._due if not self._outgoing.may_send_to(i)]:
            del self._due[subscription_id]

    def _slots(self) -> list[tuple[bytes, int]]:
        """The due map's subscriptions with their free slots, in rotation; one slot for a subscription not yet known."""
        routes, grants, slots = self._outgoing.routes, self._outgoing.grants(), []
        strangers = time.monotonic() >= self._strangers_from
        for subscription_id in self._due:
            route = routes.get(subscription_id)
            if not strangers and not self._answers(subscription_id):
                continue
            count = min(ROWS_MAX, grants.to(route) if route else 1)
            if count > 0:
                slots.append((subscription_id, count))
        return slots

    def _answers(self, subscription_id: bytes) -> bool:
        route = self._outgoing.routes.get(subscription_id)
        return route is not None and route.answers

    def _suspect_may_begin(self) -> bool:
        return self._outgoing.suspect is None or time.monotonic() >= self._suspect_began + SUSPECT_ALONE_SECONDS

    async def _admit(self, rows: Sequence[Leased], lease: int, began: float, *, suspect: bool) -> None:
        stale = self._outgoing.stale({(row.subscription_id, row.version) for row in rows})
        if stale:
            self._outgoing.update(await self._store.subscriptions(stale))
        start_by = began + START_WITHIN_SECONDS
        self._outgoing.admit([_delivery(row, lease, start_by, suspect=suspect) for row in rows])


def _delivery(row: Leased, lease: int, start_by: float, *, suspect: bool) -> Delivery:
    event = Event(b"", b"", b"")
    if row.event_id and row.type is not None and row.body is not None:
        event = Event(event_id_of(row.event_id), row.type, row.body)
    return Delivery(row.id, row.event_seq, row.subscription_id, row.attempts, lease, event, start_by, suspect)
