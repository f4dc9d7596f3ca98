"""How much one process holds: leases, bytes of bodies, requests on the wire. All its engines share one room.

A delivery enters when it is leased and leaves when its result goes to the settler; in between, one request of it begins
and ends. Nobody else counts.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.engine.fairness import Grants, Lines, Places

if TYPE_CHECKING:
    from relay.engine.endpoint import Endpoint
    from relay.model.delivery import Delivery
    from relay.model.outcome import Outcome

__all__ = ["Room"]

LEASED_MAX = 2048  # deliveries held by one process, sending or waiting their turn
BYTES_MAX = 16 * 1024 * 1024  # of their bodies


class Room:
    """The limits of one process, and what stands against them."""

    def __init__(self, max_in_flight: int, *, leased_max: int = LEASED_MAX, bytes_max: int = BYTES_MAX) -> None:
        """Begin empty.

        Args:
            max_in_flight: requests on the wire at once.
            leased_max: deliveries leased at once, sending or waiting their turn.
            bytes_max: bytes of bodies from which on nothing more is leased.
        """
        self._leases = Places(leased_max)
        self._requests = Places(max_in_flight)
        self._lines = Lines(self._requests)
        self._bytes, self._bytes_max = 0, bytes_max
        self._watchers: list[asyncio.Event] = []

    def watch(self) -> asyncio.Event:
        """Return an event of the caller's own, which is set whenever something leaves."""
        event = asyncio.Event()
        self._watchers.append(event)
        return event

    @property
    def free(self) -> int:
        """How many more deliveries this process may lease."""
        return self._leases.total - self._leases.taken if self._bytes < self._bytes_max else 0

    @property
    def free_bytes(self) -> int:
        """How many more bytes of bodies this process may take."""
        return max(0, self._bytes_max - self._bytes)

    @property
    def waiting(self) -> int:
        """How many leased deliveries wait here for their turn, to endpoints that answer."""
        leases, requests = self._leases, self._requests
        return (leases.taken - leases.unproven) - (requests.taken - requests.unproven)

    def grants(self) -> Grants:
        """Return what each endpoint may lease in the next batch."""
        return Grants(self._leases)

    def enter(self, endpoint: Endpoint, delivery: Delivery) -> None:
        """Take in a leased delivery, which then waits its turn."""
        endpoint.leased += 1
        endpoint.waiting.append(delivery)
        self._leases.take(endpoint)
        self._bytes += delivery.size
        self._lines.append(endpoint)

    def leave(self, endpoint: Endpoint, delivery: Delivery) -> None:
        """Let go of a delivery that was settled or given back. It waits no more, and its request has ended."""
        endpoint.leased -= 1
        self._leases.give_back(endpoint)
        self._bytes -= delivery.size
        for freed in self._watchers:
            freed.set()

    def begin_what_may(self) -> None:
        """Let attempts begin while there are places, one of each endpoint in line in turn, whosever engine it is."""
        while self._requests.taken < self._requests.total and (endpoint := self._lines.next()):
            endpoint.owner.begin_next(endpoint)
            self._lines.append(endpoint)

    def begin(self, endpoint: Endpoint) -> None:
        """Count a request on the wire."""
        endpoint.sending += 1
        self._requests.take(endpoint)

    def end(self, endpoint: Endpoint) -> None:
        """Count one request less on the wire."""
        endpoint.sending -= 1
        self._requests.give_back(endpoint)

    def line_up(self, endpoint: Endpoint) -> None:
        """Let an endpoint wait its turn, if it has anything to send and may."""
        self._lines.append(endpoint)

    def learn(self, endpoint: Endpoint, outcome: Outcome) -> None:
        """Let an endpoint's health follow an outcome, and count what it holds where it now belongs."""
        answered = endpoint.answers
        endpoint.health.learn(outcome.kind, outcome.status, outcome.milliseconds / 1000)
        answers = endpoint.answers
        if answers is not answered:
            self._requests.reclassify(endpoint.sending, answers=answers)
            self._leases.reclassify(endpoint.leased, answers=answers)
            self._lines.move(endpoint)
