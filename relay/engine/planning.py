"""Plan a batch of fan_out: which of its deliveries are born leased to this process, which are due, which are parked."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

from relay.engine.born_batches import BornBatches, joined
from relay.model.delivery import Delivery
from relay.store.fan_out import new_ids
from relay.store.lease import new_lease
from relay.store.rows import Birth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from relay.engine.batches import Batches
    from relay.engine.due_map import DueMap
    from relay.engine.due_marks import DueMarks
    from relay.engine.endpoint import Endpoint
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.fairness import Grants
    from relay.engine.lanes import BatchLanes
    from relay.engine.pace import Pace
    from relay.engine.room import Room
    from relay.store.bodies import Bodies
    from relay.store.fan_out import TakenBatch
    from relay.store.rows import Taken

__all__ = ["Planner"]

VERSIONS_MIN = 512  # subscriptions that are read in one fan_out at least, where so many are not known at this version


class Planner:
    """Plans one engine's batches. `start_by`: the monotonic time after which none born leased in the last may begin."""

    def __init__(
        self,
        endpoints: Endpoints,
        room: Room,
        due: DueMap,
        batches: Batches,
        pace: Pace,
        marks: DueMarks,
        *,
        priority_step_seconds: int,
    ) -> None:
        self._endpoints = endpoints
        self._room = room
        self._due = due
        self._batches = batches
        self._pace = pace
        self._marks = marks
        self._priority_step = priority_step_seconds
        self.start_by = self._slack = 0.0

    def versions(self, batch: TakenBatch) -> list[tuple[bytes, int]]:
        """Return the subscriptions that matched and may have something born leased, each with its version.

        Those are all that are known here, and as many others as there is room for.
        """
        matched = {match.subscription_id: match.version for matches in batch.all_matches() for match in matches}
        known = [(i, version) for i, version in matched.items() if self._endpoints.get(i) is not None]
        others = ((i, version) for i, version in matched.items() if self._endpoints.get(i) is None)
        return [*known, *islice(others, max(VERSIONS_MIN, self._room.free))]

    def plan(self, batch: TakenBatch, lanes: BatchLanes | None, *, may_lease: bool) -> list[Birth]:
        """Decide for every event × matching subscription whether it is born leased to this process, due or parked."""
        self.start_by = time.monotonic() + self._pace.start_within_seconds  # their leases begin later than now
        births: list[Birth] = []
        gathered = BornBatches(self._batches.left)
        leased = 0
        open_places = _OpenPlaces(self._open)
        grants = self._room.grants()
        room, lease, slack = self._room.free if may_lease else 0, new_lease(), self._pace.slack_seconds
        self._slack = slack
        matched = batch.matched()
        ids = iter(new_ids(sum([len(matches) for _, matches in matched])))  # in one call: each call is a system call
        for taken, matches in matched:
            for subscription_id, _, is_sendable, ordered, _ in matches:
                identity, lane = next(ids), taken.lane if ordered else None
                if lane is not None and lanes and lanes.is_parked(subscription_id, lane):
                    births.append(self._due_birth(identity, taken, subscription_id, lane, parked=True))
                    continue
                ready, places = is_sendable and taken.available, open_places[subscription_id]
                may = ready and taken.fits and leased < room
                if may and places.left > 0 and places.take(grants, taken.size or 0):
                    seconds = places.timeout_seconds + slack
                    row = (identity, taken.seq, subscription_id, None, lease, seconds, taken.size, None, lane)
                    births.append(Birth._make((*row, False, None, None)))  # half the time of Birth(…)
                    leased += 1
                    continue
                births.append(self._due_birth(identity, taken, subscription_id, lane))
                if may and lanes is None and places.gathered and places.left > 0:  # beside lanes it is claimed
                    gathered.add(places.gathered, len(births) - 1)
                elif ready:
                    places.left = 0
                    self._due.add(subscription_id)
                    if births[-1].boost_seconds:  # due before others that were claimed already
                        self._marks.forget(subscription_id)
        for endpoint in gathered.lease(births, grants, lease, slack, room - leased):
            self._due.add(endpoint.subscription.id)
        return births

    def _due_birth(
        self, identity: bytes, taken: Taken, subscription_id: bytes, lane: int | None, *, parked: bool = False
    ) -> Birth:
        """Return a birth that is due: earlier than it is by its event's priority, but never before `available_at`."""
        due, boost = taken.available_at, self.boost_of(taken)
        return Birth(identity, taken.seq, subscription_id, due, None, None, taken.size, boost, lane, parked)

    def boost_of(self, taken: Taken) -> int | None:
        """Return how many seconds earlier an event is due for its priority; None: not at all."""
        return taken.priority * self._priority_step if taken.priority and taken.available else None

    def _open(self, subscription_id: bytes) -> _Places:
        """Return the places for deliveries that are born leased: none with a backlog, which new events must not starve.

        Less than a full batch is no backlog: what is left over waits for more, and is claimed in time.
        """
        endpoint = self._endpoints.get(subscription_id)
        if endpoint is None or (subscription_id in self._due and not self._batches.is_gathering(subscription_id)):
            return _Places(endpoint, 0)
        return _Places(endpoint, endpoint.free)

    def deliveries(self, births: Sequence[Birth], bodies: Bodies) -> Iterator[Delivery]:
        """Return those of the last batch that were born leased; this process will send them."""
        return joined(
            _delivery(birth, bodies, self.start_by, self._slack) for birth in births if birth.lease is not None
        )


class _Places:
    """How many more deliveries a plan may lease for one subscription, `left`: none, where it is not known here.

    alone, gathered: its endpoint, as what it gets goes alone or in batches.
    """

    __slots__ = ("alone", "gathered", "left", "timeout_seconds")

    def __init__(self, endpoint: Endpoint | None, left: int) -> None:
        batches = endpoint is not None and endpoint.subscription.batch_events
        self.alone = None if batches else endpoint
        self.gathered = endpoint if batches else None
        self.left = left
        self.timeout_seconds = 0 if endpoint is None else endpoint.subscription.timeout_seconds

    def take(self, grants: Grants, size: int) -> bool:
        """Tell whether one more may be leased, to go alone; if it may, count it."""
        if self.alone is None or not grants.take(self.alone, self.left, size):
            return False
        self.left -= 1
        return True


class _OpenPlaces(dict[bytes, _Places]):
    """The places of a plan by subscription; asked of `ask` when first needed."""

    def __init__(self, ask: Callable[[bytes], _Places]) -> None:
        self._ask = ask

    def __missing__(self, subscription_id: bytes) -> _Places:
        places = self[subscription_id] = self._ask(subscription_id)
        return places


def _delivery(birth: Birth, bodies: Bodies, start_by: float, slack: float) -> Delivery:
    """Return the delivery of a row that was born leased, `slack` seconds longer than its attempt may take."""
    identity, seq, subscription_id, _, lease, seconds, _, _, lane, _, batch, _ = birth
    assert lease is not None
    assert seconds is not None
    event = bodies.events.get(seq)
    unreadable = None if event is not None else bodies.unreadable.get(seq)
    return Delivery(  # not by name, which takes nearly twice as long
        identity, seq, subscription_id, 1, lease, event, start_by, False, unreadable, lane, False, batch,  # noqa: FBT003
        seconds - slack,
    )  # fmt: skip
