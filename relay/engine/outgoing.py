"""send and decide: what is leased waits here for its turn, goes out once, and its verdict goes to the settler."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from relay.engine.fairness import Grants, Lines, Stock
from relay.engine.routes import Route
from relay.model.decide import decide
from relay.model.outcome import Outcome, OutcomeKind
from relay.model.settlement import Settlement
from relay.model.verdict import Hold, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from relay.engine.settler import Settler
    from relay.http.sender import Sender
    from relay.model.delivery import Delivery
    from relay.model.subscription import Subscription
    from relay.secrets.keyring import Keyring

__all__ = ["Outgoing"]

log = logging.getLogger("relay.engine")

LEASED_MAX = 2048  # deliveries held by one process, sending or waiting their turn
BYTES_MAX = 16 * 1024 * 1024  # of their bodies
LOCAL_LINE_EVERY_SECONDS = 10.0
# After a 410 the database closes the endpoint with the result. If it cannot (somebody has the subscription locked) the
# endpoint is asked again after this.
GONE_SECONDS = 60.0
NO_EVENT = "the event's row is gone; it was removed by hand while a delivery of it was outstanding"


class Outgoing:
    """Everything this process has leased. Made inside the running loop; nothing here waits for the database."""

    def __init__(
        self,
        sender: Sender,
        settler: Settler,
        *,
        max_in_flight: int,
        max_in_flight_per_endpoint: int,
        keep_all_responses: bool,
        keyring: Keyring,
        dice: Callable[[], float],
    ) -> None:
        self._sender = sender
        self._settler = settler
        self._max_in_flight = max_in_flight
        self._window_max = max_in_flight_per_endpoint
        self._keep_all_responses = keep_all_responses
        self._keyring = keyring
        self._dice = dice
        self.routes: dict[bytes, Route] = {}
        self._closed: set[bytes] = set()
        self.room_freed = asyncio.Event()
        self._suspect: Delivery | None = None
        self._suspect_is_out = False
        self._create_task = asyncio.get_running_loop().create_task  # looking the loop up costs a system call
        self._strange_leases, self._strange_requests = Stock(LEASED_MAX), Stock(max_in_flight)
        self._lines = Lines(self._strange_requests)
        self._sending = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._leased = 0
        self._bytes = 0
        self._clock_offset = time.time() - time.monotonic()
        self._next_lines: dict[bytes, float] = {}

    @property
    def room(self) -> int:
        """How many more deliveries this process may lease."""
        return LEASED_MAX - self._leased if self._bytes < BYTES_MAX else 0

    def grants(self) -> Grants:
        """Return what each route may lease in the next batch."""
        return Grants(self._strange_leases)

    @property
    def waiting(self) -> int:
        """How many leased deliveries wait here for their turn, to endpoints that answer."""
        return (self._leased - self._strange_leases.held) - (self._sending - self._strange_requests.held)

    @property
    def byte_room(self) -> int:
        """How many more bytes of bodies this process may take."""
        return max(0, BYTES_MAX - self._bytes)

    @property
    def suspect(self) -> Delivery | None:
        """The suspect begun last, until the database knows what became of it: so long it bears a charge."""
        suspect = self._suspect
        if suspect is not None and not self._suspect_is_out and not self._settler.holds(suspect):
            self._suspect = None
        return self._suspect

    @property
    def idle(self) -> bool:
        """Whether nothing is leased."""
        return not self._leased

    def set_clock(self, unix_seconds: float) -> None:
        """Take the database's time: signatures carry its clock, whatever this machine's says."""
        self._clock_offset = unix_seconds - time.monotonic()

    def stale(self, versions: Iterable[tuple[bytes, int]]) -> list[bytes]:
        """Return which of these (id, version) are newer than what is known here."""
        known = self.routes
        return [i for i, version in versions if i not in known or known[i].subscription.version < version]

    def outdated(self, versions: Iterable[tuple[bytes, int]]) -> list[bytes]:
        """Return which of these (id, version) are known here at an older version."""
        known = self.routes
        return [i for i, version in versions if i in known and known[i].subscription.version < version]

    def waiting_for(self) -> list[tuple[bytes, int]]:
        """Return the subscriptions (id, version) of which something waits here for its turn."""
        return [(i, route.subscription.version) for i, route in self.routes.items() if route.waiting]

    def may_send_to(self, subscription_id: bytes) -> bool:
        """Tell whether nothing known here closes this subscription."""
        return subscription_id not in self._closed or self.routes[subscription_id].is_open

    def reopened(self) -> list[bytes]:
        """Return, once, which subscriptions were closed and are open again."""
        opened = [i for i in self._closed if self.routes[i].is_open]
        self._closed.difference_update(opened)
        return opened

    def update(self, subscriptions: Iterable[Subscription]) -> None:
        """Take over subscriptions as read from the database; of closed ones, give back what has not begun."""
        for subscription in subscriptions:
            route = self.routes.get(subscription.id)
            if route is None:
                route = self.routes[subscription.id] = Route(subscription, self._window_max, self._keyring)
            else:
                route.update(subscription)
            self._clear_if_closed(route)

    def admit(self, deliveries: Iterable[Delivery]) -> None:
        """Take leased deliveries in and send what may go now."""
        for delivery in deliveries:
            route = self.routes.get(delivery.subscription_id)
            if route is None:  # its subscription vanished since; housekeeping clears the row
                continue
            route.leased += 1
            self._leased += 1
            self._strange_leases.held += not route.answers
            self._bytes += len(delivery.event.body)
            route.waiting.append(delivery)
            self._lines.append(route)
            if delivery.suspect:
                self._suspect, self._suspect_is_out = delivery, True
            self._clear_if_closed(route)
        self._pump()

    def release_waiting(self) -> None:
        """Give back everything that has not begun (on the way out of the process)."""
        for route in self.routes.values():
            self._clear(route)

    def release_late(self) -> None:
        """Give back what found no place in time, before its lease ends and it is taken for one that ends processes."""
        now = time.monotonic()
        for route in self.routes.values():
            while route.waiting and now > route.waiting[0].start_by + route.subscription.timeout_seconds:
                self._give_back(route, route.waiting.popleft(), 0.0)

    async def finished(self) -> None:
        """Wait until nothing is on the wire."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def abort(self) -> None:
        """Cut what is still on the wire; each ends as a failed attempt, because its request may have been read."""
        await asyncio.sleep(0)  # a task cancelled before its first step would end without a word
        for task in self._tasks:
            task.cancel()
        await self.finished()

    def _pump(self) -> None:
        """Begin as many attempts as the limits allow, one of each route in the line in turn."""
        while self._sending < self._max_in_flight and (route := self._lines.next()):
            self._begin(route, route.waiting.popleft())
            self._lines.append(route)

    def _learn(self, route: Route, outcome: Outcome) -> None:
        """Let the route follow its endpoint's health, and count what it holds where it now belongs."""
        answered = route.answers
        route.learn(outcome.kind, outcome.status, outcome.milliseconds / 1000)
        if route.answers is answered:
            return
        sign = 1 if answered else -1
        self._strange_requests.held += sign * route.sending
        self._strange_leases.held += sign * route.leased
        self._lines.change(route)

    def _begin(self, route: Route, delivery: Delivery) -> None:
        if time.monotonic() > delivery.start_by:
            self._give_back(route, delivery, 0.0)
            return
        route.sending += 1
        self._sending += 1
        self._strange_requests.held += not route.answers
        task = self._create_task(self._attempt(route, delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, route: Route, delivery: Delivery) -> None:
        """send → decide → settle, for one delivery. Every branch ends in the settler."""
        subscription, began = route.subscription, time.monotonic()
        try:
            outcome = await self._send(route, delivery)
        except asyncio.CancelledError:
            outcome = _outcome(OutcomeKind.ABORTED, began, "the relay was told to stop at once")
        except Exception as error:
            log.exception("%s: attempt failed inside the relay", delivery)
            outcome = _outcome(OutcomeKind.INTERNAL, began, f"{type(error).__name__} inside the relay; see its log")
        route.sending -= 1
        self._sending -= 1
        self._strange_requests.held -= not route.answers
        verdict = decide(
            outcome, delivery.attempts, subscription.schedule_seconds, self._dice(), subscription.final_statuses
        )
        self._learn(route, outcome)
        if verdict.kind == VerdictKind.RELEASE:
            self._say_unsent(subscription.id, outcome)
            self._give_back(route, delivery, verdict.wait_seconds)
        else:
            self._forget(route, delivery)
            keep = self._keep_all_responses or outcome.kind != OutcomeKind.DELIVERED
            self._settler.settle(Settlement.of(delivery, verdict, outcome, subscription.url, keep=keep))
        if verdict.endpoint is not None and subscription.url == route.subscription.url:
            route.close(verdict.endpoint.seconds if isinstance(verdict.endpoint, Hold) else GONE_SECONDS)
            self._clear_if_closed(route)
        self._lines.append(route)
        self._pump()

    async def _send(self, route: Route, delivery: Delivery) -> Outcome:
        if route.problem is not None:
            kind, error = route.problem
            return _outcome(kind, time.monotonic(), error)
        event = delivery.event
        if not event.id:
            return _outcome(OutcomeKind.EVENT_GONE, time.monotonic(), NO_EVENT)
        timestamp = b"%d" % (time.monotonic() + self._clock_offset)
        return await route.envelope.send(self._sender, event, timestamp, route.subscription.timeout_seconds)

    def _say_unsent(self, subscription_id: bytes, outcome: Outcome) -> None:
        """One line in ten seconds, of missing keys one a subscription: no attempt row tells of what was not sent."""
        now, of_a_key = time.monotonic(), outcome.kind == OutcomeKind.KEY_UNAVAILABLE
        subject = subscription_id if of_a_key else b""
        if now < self._next_lines.get(subject, 0.0):
            return
        self._next_lines[subject] = now + LOCAL_LINE_EVERY_SECONDS
        if of_a_key:
            log.warning("%s; what is due is tried again every minute", outcome.error)
        else:
            log.warning("this machine cannot send: %s; what is due is tried again every second", outcome.error)

    def _clear_if_closed(self, route: Route) -> None:
        if not route.is_open:
            self._closed.add(route.subscription.id)
            self._clear(route)

    def _clear(self, route: Route) -> None:
        while route.waiting:
            self._give_back(route, route.waiting.popleft(), 0.0)

    def _give_back(self, route: Route, delivery: Delivery, seconds: float) -> None:
        self._forget(route, delivery)
        self._settler.release(delivery, seconds)

    def _forget(self, route: Route, delivery: Delivery) -> None:
        route.leased -= 1
        self._leased -= 1
        self._strange_leases.held -= not route.answers
        self._bytes -= len(delivery.event.body)
        if self._suspect is delivery:
            self._suspect_is_out = False
        self.room_freed.set()


def _outcome(kind: OutcomeKind, began: float, error: str) -> Outcome:
    return Outcome(kind=kind, status=None, milliseconds=int((time.monotonic() - began) * 1000), error=error)
