"""Fan out: pending events × matching subscriptions → deliveries, born leased to this process where there is room."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import psycopg

from relay.engine.filtering import Filtering
from relay.engine.lanes import BatchLanes, Looker, OrderedTake
from relay.engine.planning import Planner
from relay.engine.stuck_relays import TurnWait
from relay.engine.take_shares import TakeShares
from relay.message.trace import note_fan_out
from relay.store.fan_out import MAX_SEQ
from relay.store.fan_out_wide import WIDE_FROM
from relay.store.lanes import is_lane_race
from relay.store.postgres_errors import is_refusal, one_line

if TYPE_CHECKING:
    from relay.engine.batches import Batches
    from relay.engine.due_map import DueMap
    from relay.engine.due_marks import DueMarks
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.lanes import Bounds
    from relay.engine.meter import Meter
    from relay.engine.pace import Pace
    from relay.engine.room import Room
    from relay.engine.sending import Sending
    from relay.store.bodies import Bodies
    from relay.store.fan_out import TakenBatch
    from relay.store.filters import Look
    from relay.store.lanes import Lane
    from relay.store.pending_shares import Shares
    from relay.store.store import Store

__all__ = ["FanOut"]

log = logging.getLogger("relay.engine")

EVENTS_MAX = 500
EVENTS_FIRST = 64  # in the first batch: how many subscriptions an event matches is not known yet
DELIVERIES_MAX = 20_000
DELIVERIES_AIM = 5000  # in one transaction, when each event matches many subscriptions
BUSY_FROM_UNBEGUN = 512  # leased deliveries that wait here, none of them for more than a second
EVERY_SECONDS = 0.25
TAKES_MAX = 4  # of one batch, while others subscribe in between
LOOK_AT = 1000  # lanes in one look, of those in which a wide event was parked
FAR = 1_000_000  # numbers, a leaf's or less: where pending events may be spread over more, they are chosen before
# Where events have tenants or priorities, a batch is smaller and comes more often, so that it takes some of each soon.
GROUPED_EVERY_SECONDS = 0.05
GROUPED_EVENTS_MAX = 128


class FanOut:
    """One engine's fan_out. `limit`: how many events the next batch takes at most, whatever room there is."""

    def __init__(
        self,
        store: Store,
        endpoints: Endpoints,
        room: Room,
        sending: Sending,
        due: DueMap,
        batches: Batches,
        pace: Pace,
        marks: DueMarks,
        *,
        priority_step_seconds: int,
        meter: Meter,
    ) -> None:
        self._store = store
        self.shares = TakeShares()
        self._room = room
        self._sending = sending
        self._due = due
        self._pace = pace
        self._meter = meter
        self.planner = Planner(endpoints, room, due, batches, pace, marks, priority_step_seconds=priority_step_seconds)
        self._wait = TurnWait(store)
        self.filters = Filtering(store, pace, sending.evaluator)
        self._ordered = OrderedTake()
        self.looker = Looker(store)
        self.limit = EVENTS_FIRST
        self._matches_each = 1.0  # on average, in the last batch
        self._began = 0.0
        self._busy = False
        self._may_lease = True
        self.drawn = 0  # the last number that any event had, as of the last poll
        self._parked: list[Lane] = []  # in lanes of the last wide event

    def is_due(self, *, claimable: bool) -> bool:
        """Tell whether to fan out now: yes, but only now and then while older work keeps this process busy.

        A delivery that is born leased costs a third less than one that has to be claimed. It needs room, and an
        endpoint without backlog: so what can be claimed, and what waits here, goes first. A backlog of endpoints that
        have no room delays nothing.
        """
        self._busy = claimable or self._room.unbegun >= BUSY_FROM_UNBEGUN
        every = GROUPED_EVERY_SECONDS if self.shares.grouped else EVERY_SECONDS
        return not self._busy or time.monotonic() >= self._began + every

    async def run(self, low: int, up_to: int = MAX_SEQ, *, may_lease: bool = True) -> tuple[int | None, bool]:
        """Fan out one batch of the events above `low`: pending → due, or leased where it may.

        Returns:
            The first event taken (None when nothing was), and whether there may be more.
        """
        self._began, limit, self._may_lease = time.monotonic(), self._fitting(), may_lease
        take = self._ordered.bounds(low, up_to)
        shares = self.shares.choose(limit)
        is_far = min(up_to, self.drawn) - take.events_after > FAR
        chosen = await self._store.choose(take.after, limit, up_to, shares) if is_far else None
        look = await self.filters.look_ahead(take.after, limit, up_to, shares, chosen)
        for _ in range(TAKES_MAX):
            result = await self._run(take, limit, shares, look)
            if result is not None:
                await self._look_at_parked()
                return result
            look = await self.filters.ask_wanted()
        return None, True

    async def _run(
        self, take: Bounds, limit: int, shares: Shares | None, look: Look | None
    ) -> tuple[int | None, bool] | None:
        """Take and resolve one batch; None where a filter has to be asked before."""
        alone = await self._first_pending(take.after, look) if limit == 1 else None
        one = take if alone is None else take.of_first(alone)
        budget = min(self._room.fan_out_bytes, self._pace.bytes)
        try:
            async with self._store.fan_out(
                one.after, limit, budget, up_to_seq=one.up_to, shares=shares, look=look,
                events_after_seq=one.events_after, most_matches=WIDE_FROM,
            ) as batch:  # fmt: skip
                self._wait.end()
                if not self._ordered.trusts(batch, one):
                    return None, True
                if batch.is_wide:
                    return await self._resolve_wide(batch, complete=one.complete)
                if not self.filters.apply(batch):
                    return None
                more = look is not None and look.more
                self.shares.note(batch, len(batch.taken) if more else limit, take.up_to, shares)
                if not batch.taken:
                    return None, more or bool(look and look.seqs)  # another relay may have taken what was chosen
                if self._is_too_many(batch):
                    return None, True
                await self._resolve(batch)
        except psycopg.errors.LockNotAvailable:
            await self._wait.go_on()
            return None, True
        except psycopg.Error as error:
            if is_lane_race(error):  # a replay was promoted in a lane that was empty
                return None, True
            if not is_refusal(error):
                raise
            await self._isolate_refused(alone, limit, error)
            return alone, True
        await self.looker.look()
        return batch.taken[0].seq, more or shares is not None or len(batch.taken) == limit

    async def _resolve(self, batch: TakenBatch) -> None:
        """Make the deliveries of a batch, and send those that are born leased."""
        # plan() asks their endpoints
        await self._sending.refresh(self.planner.versions(batch), batch.read_subscriptions)
        lanes = await BatchLanes.of(batch)
        births = self.planner.plan(batch, lanes, may_lease=self._may_lease)
        asked = time.monotonic()
        began_ns = time.time_ns() - int((asked - self._began) * 1e9)
        bodies = await batch.resolve(births, self.filters.bodies, in_lanes=lanes is not None)
        self._adapt(len(batch.taken), len(births))
        self._note_answer(bodies, time.monotonic() - asked)
        note_fan_out(bodies.events.values(), began_ns)
        bodies = self.filters.end(batch, bodies)
        self._sending.admit(self.planner.deliveries(births, bodies))  # only now: the transaction has committed
        if lanes is not None:
            self.looker.add(lanes.with_parked)

    async def _resolve_wide(self, batch: TakenBatch, *, complete: bool) -> tuple[int | None, bool] | None:
        """Resolve one event that very many subscriptions match; where there are others beside it, take it alone.

        None where a filter has to be asked before.
        """
        if len(batch.taken) > 1:
            self.limit = 1
            return None, True
        (taken,) = batch.taken
        told = self.filters.answers_to(batch)
        if told is None:
            return None
        births = await batch.resolve_wide(self.planner.boost_of(taken), told, may_order=complete)
        if births.unasked:
            self.filters.want(batch)
            return None
        if births.unordered:
            self._ordered.note_ordered()
            return None, True
        self.filters.end_wide(batch, births.gave_up)
        self._parked = [(subscription_id, taken.lane) for subscription_id in births.parked if taken.lane is not None]
        self._adapt(1, births.made)
        return taken.seq, True

    async def _look_at_parked(self) -> None:
        """Look at the lanes in which the last event was parked, in slices. What is forgotten here, the sweep finds."""
        parked, self._parked = self._parked, []
        for at in range(0, len(parked), LOOK_AT):
            self.looker.add(parked[at : at + LOOK_AT])
            await self.looker.look()

    async def _first_pending(self, low: int, look: Look | None) -> int | None:
        if look is not None:
            return look.seqs[0] if look.seqs else None
        return await self._store.find_first_pending(low)

    def _fitting(self) -> int:
        """How many events to take: as many as have all their deliveries born leased, so that none must be claimed.

        While something is due nothing is born leased, and a large batch would keep that so for ever.
        """
        room = 0 if self._due else self._room.free
        most = GROUPED_EVENTS_MAX if self._busy and self.shares.grouped else self.limit
        return max(1, min(self.limit, most, int(max(room, BUSY_FROM_UNBEGUN) / self._matches_each)))

    def _note_answer(self, bodies: Bodies, seconds: float) -> None:
        """Let the next batch bring what the link takes in time: half as much, where this one came too late."""
        if bodies.events:
            self._pace.note_answer(sum(event.size for event in bodies.events.values()), seconds)
            if time.monotonic() > self.planner.start_by:
                self._pace.note_late()

    def _is_too_many(self, batch: TakenBatch) -> bool:
        """Tell whether a batch has too many deliveries for one transaction; if so, take fewer events next time."""
        births = sum([len(matches) for _, matches in batch.matched()])
        if len(batch.taken) == 1 or births <= DELIVERIES_MAX:
            return False
        self._adapt(len(batch.taken), births)
        return True

    def _adapt(self, events: int, births: int) -> None:
        """Aim the next batch at a bounded number of deliveries; recover from a batch that was halved."""
        self._meter.resolved(events, births)
        self._matches_each = max(1.0, births / events)
        self.limit = max(1, min(EVENTS_MAX, int(DELIVERIES_AIM / self._matches_each), self.limit * 2))

    async def _isolate_refused(self, alone: int | None, limit: int, error: psycopg.Error) -> None:
        """Halve the batch until the event that the database refuses is alone, then make it a dead letter."""
        if alone is None:
            self.limit = max(1, limit // 2)
            return
        if await self._store.bury_unresolvable(alone, one_line(error)):
            log.error("event %d cannot be resolved and is a dead letter now: %s", alone, one_line(error))
