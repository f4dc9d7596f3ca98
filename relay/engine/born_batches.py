"""Batches that fan_out fills at once: they are born leased, so that no claim has to gather them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.model.delivery import batch_of
from relay.store.batch_plan import full_batches
from relay.store.fan_out import new_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from relay.engine.endpoint import Endpoint
    from relay.engine.fairness import Grants
    from relay.model.delivery import Delivery
    from relay.store.rows import Birth

__all__ = ["BornBatches", "joined"]


class BornBatches:
    """The births of one plan that are gathered, by endpoint: each is due, until `lease` has put it into a batch.

    left: how many deliveries of each subscription earlier plans have left due, as far as this process knows.
    """

    def __init__(self, left: dict[bytes, int]) -> None:
        self._left = left
        self._places: dict[Endpoint, list[int]] = {}

    def add(self, endpoint: Endpoint, place: int) -> None:
        """Note the place of a birth that may be leased."""
        self._places.setdefault(endpoint, []).append(place)

    def lease(
        self, births: list[Birth], grants: Grants, lease: int, slack_seconds: float, room: int
    ) -> Iterator[Endpoint]:
        """Lease what fills a batch, up to `room` batches; yield the endpoints that have births left, which stay due.

        What is left of earlier plans is filled up first: it is claimed as a full batch then. `lease` is the new lease,
        which lasts `slack_seconds` longer than an attempt's timeout.
        """
        for endpoint, gathered in self._places.items():
            leased = 0
            seconds = endpoint.subscription.timeout_seconds + slack_seconds
            missing = -self._left.get(endpoint.subscription.id, 0) % _limit(endpoint)
            places = gathered[missing:]
            for members in full_batches([births[place].size or 0 for place in places], _limit(endpoint)):
                weight = sum(births[places[member]].size or 0 for member in members)
                left = endpoint.free - leased
                if not room or left <= 0 or not grants.take(endpoint, left, weight):
                    break
                (identity,) = new_ids(1)
                for member in members:
                    place = places[member]
                    births[place] = births[place]._replace(
                        due=None, lease=lease, lease_seconds=seconds, boost_seconds=None, batch=identity,
                        batch_size=len(members),
                    )  # fmt: skip
                leased, room = leased + 1, room - 1
            if left := sum(births[place].lease is None for place in gathered):
                self._left[endpoint.subscription.id] = self._left.get(endpoint.subscription.id, 0) + left
                yield endpoint


def joined(deliveries: Iterable[Delivery]) -> Iterator[Delivery]:
    """Return these deliveries, the members of each batch as one."""
    batches: dict[bytes, list[Delivery]] = {}
    for delivery in deliveries:
        if delivery.batch is None:
            yield delivery
        else:
            batches.setdefault(delivery.batch, []).append(delivery)
    for members in batches.values():
        yield batch_of(members)


def _limit(endpoint: Endpoint) -> int:
    limit = endpoint.subscription.batch_events
    assert limit is not None
    return limit
