"""Ask for what the limits allow, for all endpoints that have gates, in one statement a kind and step.

An endpoint rests while a limit lets nothing more to it: it is not in the due map, so it is neither claimed nor asked
for. So waiting costs no attempt, no lease and no polling, however far away the next request is.
"""

from __future__ import annotations

import heapq
import math
import os
import time
from itertools import islice
from typing import TYPE_CHECKING

from relay.engine.gate import HAND_BACK_SECONDS
from relay.store.in_flight import AskedShare
from relay.store.postgres_errors import is_locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from relay.engine.due_map import DueMap
    from relay.engine.endpoint import Endpoint
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.gate import CapShare
    from relay.engine.slots import Slots
    from relay.store.limits import AskedSlots
    from relay.store.store import Store

__all__ = ["Limiter"]

ENDPOINTS_MAX = 500  # in one step
SHARE_SECONDS = 6.0  # how much longer than an attempt's timeout a share lasts: as a lease does
SHARE_MARGIN_SECONDS = 1.0  # an attempt ends so long before its share does
SHARE_RENEW_SECONDS = 2.0
SHARE_RETRY_SECONDS = 0.5  # after others were found to have all, or more is wanted
HELD_SECONDS = 1.0  # after a cell was found locked by somebody who does not go on


class Limiter:
    """One engine's limits. `rest_until`: the monotonic time at which something that waits for a limit may go on."""

    def __init__(self, store: Store, endpoints: Endpoints, due: DueMap) -> None:
        self._store = store
        self._endpoints = endpoints
        self._due = due
        self._holder = os.urandom(16)
        self._resting: list[tuple[float, bytes]] = []
        self._holding: dict[Slots, None] = {}
        self._sharing: dict[Endpoint, None] = {}
        self._held: frozenset[bytes] = frozenset()

    @property
    def rest_until(self) -> float:
        """When to look again; inf where nothing waits for a limit."""
        return self._resting[0][0] if self._resting else math.inf

    async def run(self) -> None:
        """Take slots and shares for what is due, and give back what was not used; let rest what has to wait."""
        if not self._endpoints.gated and not self._resting:
            return
        now = time.monotonic()
        self._end_rests(now)
        wanting = self._wanting()
        needs = _needs(wanting)
        await self._take_slots(needs, now)
        await self._take_in_flight(wanting, now)
        self._go_on(wanting)

    async def leave(self) -> None:
        """Give back the shares of this process, which has nothing under way any more."""
        asked = [AskedShare(one.subscription.id, 1, 0, 0, 1.0) for one in self._sharing]
        if asked:
            await self._store.take_in_flight(self._holder, asked)

    def _end_rests(self, now: float) -> None:
        resting = self._endpoints.resting
        while self._resting and self._resting[0][0] <= now:
            _, subscription_id = heapq.heappop(self._resting)
            if resting.get(subscription_id, math.inf) <= now:
                del resting[subscription_id]
                self._due.add(subscription_id)

    def _wanting(self) -> list[Endpoint]:
        """Return the endpoints with a gate that have something due, or something that waits here for a limit."""
        gated, resting = self._endpoints.gated, self._endpoints.resting
        fewer = self._due if len(self._due) < len(gated) else gated
        due = [gated[i] for i in fewer if i in gated and i in self._due and i not in resting]
        served = (endpoint for endpoint in (*self._endpoints.thirsty, *due) if endpoint.is_served and endpoint.gate)
        return list(islice(dict.fromkeys(served), ENDPOINTS_MAX))

    def _questions(self, needs: dict[Slots, int], now: float) -> dict[Slots, AskedSlots]:
        """Return what to ask of each cell; what was held for endpoints that want nothing more goes back."""
        wanted = {slots: slots.question(need) for slots, need in needs.items() if need and slots.wants(now)}
        for slots in [slots for slots in self._holding if slots not in needs]:
            del self._holding[slots]
            if slots.held and not slots.unbegun:
                slots.put_back()
                wanted[slots] = slots.question(0)
        return wanted

    async def _take_slots(self, needs: dict[Slots, int], now: float) -> None:
        wanted = self._questions(needs, now)
        cells = {slots.id: slots for slots in wanted}
        try:
            for cell in await self._still_held(cells):
                slots = cells.pop(cell)
                slots.take_back(wanted.pop(slots))
            granted = await self._store.take_slots(list(wanted.values())) if wanted else []
        except BaseException as error:  # noqa: BLE001 - all but one kind is raised again
            for slots, asked in wanted.items():
                slots.take_back(asked)
            await self._put_off(error, cells)
            return
        arrived = time.monotonic()
        for one in granted:
            slots = cells.pop(one.id)
            slots.take(one, arrived, all_of_it=one.slots == wanted[slots].want)
            if one.slots:
                self._holding[slots] = None
            if one.slowed_to is None and slots.rate is None:
                self._endpoints.end_slowing(one.id)
        await self._make({slots: wanted[slots] for slots in cells.values()})

    async def _make(self, missing: dict[Slots, AskedSlots]) -> None:
        """Make the cells that are not there; the next step asks them."""
        for slots, asked in missing.items():
            slots.take_back(asked)
        await self._make_cells({slots.id: slots for slots in missing})

    async def _make_cells(self, cells: Mapping[bytes, Slots | CapShare]) -> None:
        """Make these cells. One that somebody has made and does not commit is tried again in a while."""
        if not cells:
            return
        try:
            await self._store.make_cells(list(cells))
        except Exception as error:
            if not is_locked(error):
                raise
            if len(cells) == 1:
                _ask_later(cells.values())
                return
            for cell, held in cells.items():  # nothing tells which of them it is
                await self._make_cells({cell: held})

    async def _still_held(self, cells: Mapping[bytes, Slots | CapShare]) -> frozenset[bytes]:
        """Return those of the cells that somebody had locked, and still has. They are not asked, nor waited for."""
        had = self._held & cells.keys()
        held = await self._store.find_held_cells(list(had)) if had else frozenset()
        self._held = self._held - had | held
        _ask_later(cells[cell] for cell in held)
        return held

    async def _put_off(self, error: BaseException, cells: Mapping[bytes, Slots | CapShare]) -> None:
        """After an error of a lock, leave the cells that somebody holds alone for a while; raise any other."""
        if not is_locked(error):
            raise error
        held = await self._store.find_held_cells(list(cells))
        self._held |= held
        _ask_later(cells[cell] for cell in held)

    async def _take_in_flight(self, wanting: Sequence[Endpoint], now: float) -> None:
        asked: dict[bytes, tuple[Endpoint, CapShare, AskedShare]] = {}
        for endpoint in dict.fromkeys((*wanting, *self._sharing)):
            share = endpoint.gate.share if endpoint.gate else None
            if share is None or now < share.next_ask:
                continue
            busy = endpoint.is_served and (endpoint.subscription.id in self._due or bool(endpoint.unbegun))
            if (question := _share_question(endpoint, share, busy=busy)) is not None:
                asked[endpoint.subscription.id] = (endpoint, share, question)
        shares = {cell: share for cell, (_, share, _) in asked.items()}
        for cell in await self._still_held(shares):
            del asked[cell]
        if not asked:
            return
        try:
            granted = await self._store.take_in_flight(self._holder, [question for _, _, question in asked.values()])
        except Exception as error:  # noqa: BLE001 - all but one kind is raised again
            await self._put_off(error, shares)
            return
        for one in granted:
            endpoint, share, question = asked.pop(one.id)
            _note_share(share, question, one.slots, now)
            if one.slots:
                self._sharing[endpoint] = None
            else:
                self._sharing.pop(endpoint, None)
        await self._make_cells({cell: shares[cell] for cell in asked})

    def _go_on(self, wanting: Iterable[Endpoint]) -> None:
        """Let go out what may; let rest what a limit keeps from being claimed."""
        now = time.monotonic()
        for endpoint in wanting:
            gate = endpoint.gate
            if gate is None:
                self._endpoints.thirsty.pop(endpoint, None)
                endpoint.owner.wake(endpoint)
                continue
            until = gate.leases_nothing_until(now)
            if endpoint.unbegun and gate.dry_until(now) > now + HAND_BACK_SECONDS:
                endpoint.owner.give_back_unbegun(endpoint)
            self._endpoints.thirsty.pop(endpoint, None)
            if endpoint.unbegun:
                endpoint.owner.wake(endpoint)  # what finds no slot is thirsty again
            if until > now:
                self._let_rest(endpoint, until)

    def _let_rest(self, endpoint: Endpoint, until: float) -> None:
        subscription_id = endpoint.subscription.id
        if subscription_id in self._due:
            self._due.drop([subscription_id])
            self._endpoints.resting[subscription_id] = until
        heapq.heappush(self._resting, (until, subscription_id))


def _ask_later(cells: Iterable[Slots | CapShare]) -> None:
    """Ask these again in a while."""
    later = time.monotonic() + HELD_SECONDS
    for cell in cells:
        cell.next_ask = later


def _needs(wanting: Iterable[Endpoint]) -> dict[Slots, int]:
    """Return how many requests each cell is needed for: what waits, and what may be leased beside it."""
    needs: dict[Slots, int] = {}
    for endpoint in wanting:
        assert endpoint.gate is not None
        need = max(0, endpoint.free) + len(endpoint.unbegun)
        for slots in endpoint.gate.cells:
            needs[slots] = needs.get(slots, 0) + need
    return needs


def _share_question(endpoint: Endpoint, share: CapShare, *, busy: bool) -> AskedShare | None:
    """Return what to ask for, None where nothing changes."""
    window = min(share.cap, endpoint.window.size)
    want = window if busy else min(window, endpoint.sending)
    if not want and not endpoint.sending and not share.slots:
        return None
    lasts = endpoint.subscription.timeout_seconds + SHARE_SECONDS
    return AskedShare(endpoint.subscription.id, share.cap, want, endpoint.sending, lasts)


def _note_share(share: CapShare, asked: AskedShare, slots: int, now: float) -> None:
    """Hold a share that was asked for at `now`."""
    grew = slots > share.slots
    share.slots = slots
    share.usable_until = now + SHARE_SECONDS - SHARE_MARGIN_SECONDS
    if slots >= asked.want:
        share.next_ask = now + SHARE_RENEW_SECONDS
    else:
        share.next_ask = now if grew else now + SHARE_RETRY_SECONDS
