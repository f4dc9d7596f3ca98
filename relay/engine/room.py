"""Count and limit what one process holds: leases, bytes of bodies, requests on the wire. Its engines share one room.

A delivery enters when it is leased, its one request begins and ends, and it leaves when its result goes to the settler.
Nothing else counts these for the process; `Sending` counts what its own engine has leased, to tell when that is idle.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from relay.engine.byte_shares import ByteGrants, ByteRoom
from relay.engine.fairness import Grants, Places, Queues
from relay.engine.lending import Lending
from relay.engine.tenants import Tenants
from relay.model.alike import receiver_of
from relay.model.delivery import SMALL_BYTES
from relay.model.outcome import RETRY_AFTER_MAX_SECONDS, Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.engine.endpoint import Endpoint
    from relay.engine.settler import Settler
    from relay.model.delivery import Delivery
    from relay.model.outcome import Outcome
    from relay.model.subscription import SubscriptionVersion

__all__ = ["Room"]

BEGUN_AT_ONCE = 16  # requests that begin in one turn of the loop: what the database answers is read only after it
LEASED_MAX = 2048  # deliveries held by one process, sending or unbegun
BYTES_MAX = 16 * 1024 * 1024  # of those of their bodies that are not small
FAN_OUT_BYTES_MIN = 64 * SMALL_BYTES  # fan_out reads so much of bodies in any case: small ones always find room


class Room:
    """The limits of one process, and what counts against them."""

    def __init__(self, max_in_flight: int, *, leased_max: int = LEASED_MAX, bytes_max: int = BYTES_MAX) -> None:
        """Begin empty.

        Args:
            max_in_flight: requests on the wire at once.
            leased_max: deliveries leased at once, sending or unbegun.
            bytes_max: bytes of bodies, shared out as byte_shares.py says.
        """
        self._leases = Places(leased_max)
        self._requests = Places(max_in_flight)
        self.tenants = Tenants()
        self._queues = Queues(self._requests, self.tenants)
        self._lending = Lending(self._requests)
        self._bytes = ByteRoom(bytes_max)
        self._watchers: set[asyncio.Event] = set()
        self._settlers: set[Settler] = set()
        self._begins = False  # whether attempts begin in the next turn of the loop

    def watch(self) -> asyncio.Event:
        """Return a new asyncio.Event, which is set whenever a delivery leaves."""
        freed = asyncio.Event()
        self._watchers.add(freed)
        return freed

    def stop_watching(self, freed: asyncio.Event) -> None:
        """Forget an event that `watch` returned."""
        self._watchers.discard(freed)

    def add_settler(self, settler: Settler) -> None:
        """Count a settler's unwritten results. Those beyond the number of leases each take the place of a lease.

        So a database that stores results slowly is not outrun: results would come after the end of their leases.
        """
        self._settlers.add(settler)

    def remove_settler(self, settler: Settler) -> None:
        """Forget a settler that `add_settler` was given."""
        self._settlers.discard(settler)

    @property
    def free(self) -> int:
        """How many more deliveries this process may lease."""
        unwritten = sum(settler.unwritten for settler in self._settlers)
        return max(0, self._leases.total - self._leases.taken - max(0, unwritten - self._leases.total))

    @property
    def takes_unproven(self) -> bool:
        """Whether one more delivery may be leased for an endpoint without an answer."""
        return self._leases.allowance(0) > 0

    @property
    def free_bytes(self) -> int:
        """How many more bytes of bodies that are not small this process may take."""
        return max(0, self._bytes.total - self._bytes.taken)

    @property
    def fan_out_bytes(self) -> int:
        """How many bytes of bodies a fan_out may read."""
        return max(self.free_bytes, FAN_OUT_BYTES_MIN)

    @property
    def unbegun(self) -> int:
        """How many leased deliveries wait here for endpoints that answer."""
        leases, requests = self._leases, self._requests
        return (leases.taken - leases.unproven) - (requests.taken - requests.unproven)

    def grants(self, asked: int = 1) -> Grants:
        """Return a counter of what the next batch may lease for `asked` endpoints."""
        return Grants(self._leases, ByteGrants(self._bytes, asked, self.tenants), self.tenants)

    def enter(self, endpoint: Endpoint, delivery: Delivery) -> None:
        """Count a leased delivery and let it wait for its endpoint."""
        endpoint.leased += 1
        tenant = endpoint.tenant
        tenant.leased += 1
        tenant.unproven_leased += not endpoint.window.proven
        endpoint.unbegun.append(delivery)
        self._leases.take(endpoint)
        self._bytes.take(endpoint, delivery.size)
        if endpoint.gate is not None:
            endpoint.gate.enter()
        self._queues.append(endpoint)

    def leave(self, endpoint: Endpoint, delivery: Delivery) -> None:
        """Stop counting a delivery that was settled or given back. It no longer waits, and its request has ended."""
        endpoint.leased -= 1
        tenant = endpoint.tenant
        tenant.leased -= 1
        tenant.unproven_leased -= not endpoint.window.proven
        self._leases.give_back(endpoint)
        self._bytes.give_back(endpoint, delivery.size)
        for freed in self._watchers:
            freed.set()

    def begin_attempts(self) -> None:
        """Begin attempts while there are places: one for each queued endpoint in turn, of any engine.

        After BEGUN_AT_ONCE, the others begin in the loop's next turn.
        """
        self._lending.take_back()
        for _ in range(BEGUN_AT_ONCE):
            if self._requests.taken >= self._requests.total or not (endpoint := self._queues.next()):
                return
            endpoint.owner.begin_next(endpoint)
            self._queues.append(endpoint)
        self.begin_attempts_soon()

    def begin_attempts_soon(self) -> None:
        """Begin attempts in the next turn of the loop, once for all that ended in this one.

        Requests that go out together are answered together: fewer turns, each with more to do.
        """
        if not self._begins:
            self._begins = True
            asyncio.get_running_loop().call_soon(self._begin_attempts)

    def _begin_attempts(self) -> None:
        self._begins = False
        self.begin_attempts()

    def begin(self, endpoint: Endpoint) -> None:
        """Count a request on the wire."""
        endpoint.sending += 1
        tenant = endpoint.tenant
        tenant.sending += 1
        tenant.unproven_sending += not endpoint.window.proven
        if endpoint.gate is not None:
            endpoint.gate.begin()
        self._requests.take(endpoint)

    def end(self, endpoint: Endpoint) -> None:
        """Count one request less on the wire."""
        endpoint.sending -= 1
        tenant = endpoint.tenant
        tenant.sending -= 1
        tenant.unproven_sending -= not endpoint.window.proven
        self._requests.give_back(endpoint)

    @asynccontextmanager
    async def lending(self, endpoint: Endpoint, start_by: float) -> AsyncIterator[None]:
        """Lend the place of a request that waits for this machine, not for its endpoint, to another one meanwhile.

        It keeps counting for its endpoint and tenant. At the end it waits for a place again, before all that have not
        begun: there are never more than `max_in_flight` requests on the wire. Raises TooLateError where it waited until
        the monotonic time `start_by`.
        """
        async with self._lending.lent(unproven=not endpoint.answers, start_by=start_by):
            self.begin_attempts()
            yield

    def enqueue(self, endpoint: Endpoint) -> None:
        """Queue an endpoint for a place, if it has anything to send and may send it."""
        self._queues.append(endpoint)

    def learn(self, endpoint: Endpoint, outcome: Outcome, subscription: SubscriptionVersion | None = None) -> None:
        """Adapt an endpoint's window to an outcome; if it became proven or unproven, count what it holds there.

        An answer that is about all endpoints of its receiver holds them back too. `subscription`: the version that was
        sent with; None where nothing follows for others.
        """
        window = endpoint.window
        answered = window.proven
        window.learn(outcome.kind, outcome.status, outcome.milliseconds / 1000)
        if endpoint.gate is not None:
            endpoint.gate.note(outcome)
        answers = window.proven
        if answers is not answered:
            self._requests.reclassify(endpoint.sending, answers=answers)
            self._leases.reclassify(endpoint.leased, answers=answers)
            endpoint.tenant.reclassify(endpoint, answers=answers)
            self._bytes.reclassify(endpoint, answers=answers)
            self._queues.move(endpoint)
            if endpoint.registry is not None:
                endpoint.registry.note_answers(endpoint)
        if not outcome.retry_after_seconds or subscription is None or endpoint.registry is None:
            return
        if outcome.scope is Scope.RECEIVER and (receiver := receiver_of(subscription.format, subscription.url)):
            endpoint.registry.hold_alike(receiver, min(outcome.retry_after_seconds, RETRY_AFTER_MAX_SECONDS))
