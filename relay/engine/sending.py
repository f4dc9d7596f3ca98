"""Send and decide: a leased delivery waits here, is sent once, and its result goes to the settler."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from outbox.formats import shown_url
from relay.engine.ailing import note_health
from relay.engine.batches import Unfit, send_batch
from relay.engine.failure_log import FailureLog
from relay.engine.health import OVERLOADED
from relay.engine.slowing import slowed_seconds
from relay.engine.unsent import Unsent, warn_held_for_good
from relay.message.transformation.budget import TransformationError
from relay.model.decide import decide, halve, keep_at_head
from relay.model.outcome import Outcome, OutcomeKind, milliseconds_since
from relay.model.settlement import Settlement
from relay.model.verdict import Hold, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from relay.engine.clock import DatabaseClock
    from relay.engine.endpoint import Endpoint
    from relay.engine.endpoint_registry import Endpoints
    from relay.engine.lone_suspect import LoneSuspect
    from relay.engine.room import Room
    from relay.engine.settler import Settler
    from relay.http.sender import Sender
    from relay.model.delivery import Delivery
    from relay.model.subscription import SubscriptionVersion

__all__ = ["Sending"]

log = logging.getLogger("relay.engine")

WARN_EVERY_SECONDS = 10.0
# After a 410 the database disables the subscription with the result. If it cannot, because somebody has locked the
# subscription, the endpoint is asked again after this time.
GONE_SECONDS = 60.0
# An attempt that ended in an error of our own is due again after this time: the error will mostly come again.
OWN_ERROR_SECONDS = 60.0
NO_EVENT = "the event's row is gone; it was removed by hand while a delivery of it was outstanding"


class Sending:
    """Holds and sends everything that one engine has leased. Made inside the running loop.

    Only `refresh` waits for the database.
    """

    def __init__(
        self,
        sender: Sender,
        settler: Settler,
        endpoints: Endpoints,
        room: Room,
        clock: DatabaseClock,
        suspect: LoneSuspect,
        *,
        keep_all_responses: bool,
        random_number: Callable[[], float],
    ) -> None:
        self._sender = sender
        self._settler = settler
        self._endpoints = endpoints
        self._room = room
        self._clock = clock
        self._suspect = suspect
        self._keep_all_responses = keep_all_responses
        self._random_number = random_number
        self._loop = asyncio.get_running_loop()  # each look-up is a system call
        self._tasks: set[asyncio.Task[None]] = set()
        self._leased = 0
        self._warned_at = -WARN_EVERY_SECONDS
        self.unsent = Unsent()
        self._failure_log = FailureLog()
        self._late = 0  # given back since the log last said so
        self._late_said_at = -WARN_EVERY_SECONDS

    @property
    def leased(self) -> int:
        """How many deliveries are held, waiting here or on the wire."""
        return self._leased

    @property
    def idle(self) -> bool:
        """Whether nothing is leased."""
        return not self._leased

    @property
    def has_waiting(self) -> bool:
        """Whether anything leased has not begun."""
        return self._leased > len(self._tasks)

    @property
    def done(self) -> bool:
        """Whether nothing is leased, and every result is in the database."""
        return not self._leased and not self._settler.unsettled

    async def refresh(
        self,
        versions: Iterable[tuple[bytes, int]],
        read: Callable[[list[bytes]], Awaitable[Iterable[SubscriptionVersion]]],
    ) -> None:
        """Read again, by `read`, those subscriptions (id, version) that are not known here at this version."""
        stale = self._endpoints.stale(versions)
        if stale:
            self.update(await read(stale))

    def update(self, subscriptions: Iterable[SubscriptionVersion]) -> None:
        """Store subscriptions that were read from the database; for closed ones, give back what has not begun."""
        for subscription in subscriptions:
            endpoint = self._endpoints.update(subscription, self)
            if subscription.held_for_good:
                warn_held_for_good(endpoint)
            self._give_back_if_closed(endpoint)

    def admit(self, deliveries: Iterable[Delivery]) -> None:
        """Take leased deliveries in, and begin the attempts that may begin now.

        Call `refresh` before: a delivery of an unknown subscription is skipped.
        """
        for delivery in deliveries:
            endpoint = self._endpoints.get(delivery.subscription_id)
            if endpoint is None:  # its subscription was removed meanwhile; housekeeping clears the row
                continue
            if bool(endpoint.subscription.batch_events) is not bool(delivery.members) and not delivery.suspect:
                self._settler.release(delivery, 0.0)  # claimed by what the subscription was before
                continue
            self._leased += 1
            self._room.enter(endpoint, delivery)
            if delivery.suspect:
                self._suspect.note_begun(delivery)
            if not delivery.probe:  # that one is for an endpoint whose breaker is open
                self._give_back_if_closed(endpoint)
        self._room.begin_attempts()

    def release_waiting(self) -> None:
        """Give back everything that has not begun; the engine stops."""
        for endpoint in self._endpoints:
            self.give_back_waiting(endpoint)

    def release_late(self) -> None:
        """Give back what found no place in time, before its lease ends: it would become a suspect."""
        now = time.monotonic()
        for endpoint in self._endpoints:
            waiting, timeout = endpoint.waiting, endpoint.subscription.timeout_seconds
            while waiting and now > waiting[0].start_by + timeout:
                self._give_back_late(endpoint, waiting.popleft())

    async def finish(self) -> None:
        """Wait until nothing is on the wire."""
        # A task that was cancelled before its first step is done, and has not taken itself out.
        while under_way := {task for task in self._tasks if not task.done()}:
            await asyncio.wait(under_way)

    async def abort(self) -> None:
        """Cut what is still on the wire; each ends as a failed attempt, because its request may have been read."""
        await asyncio.sleep(0)  # a task that is cancelled before its first step would leave no result
        for task in self._tasks:
            task.cancel()
        await self.finish()
        self._failure_log.tell()

    async def attempt(self, endpoint: Endpoint, delivery: Delivery) -> None:
        """Make one attempt: send → decide → settle. Whatever raises on the way, its places come free.

        The order matters: the request is counted off before the endpoint is queued again.
        """
        subscription = endpoint.subscription
        outcome = await self._outcome_of(endpoint, delivery)
        self._room.end(endpoint)
        try:
            if isinstance(outcome, Unfit):
                self._part_with(endpoint, delivery, subscription, outcome)
            else:
                self._conclude(endpoint, delivery, subscription, outcome)
        except Exception:
            log.exception("%s: given back; what follows from its attempt could not be concluded", delivery)
            self._give_back(endpoint, delivery, OWN_ERROR_SECONDS)
        self._room.enqueue(endpoint)
        self._room.begin_attempts()
        if (task := asyncio.current_task(self._loop)) is not None:
            self._tasks.discard(task)  # a done callback would cost each attempt a turn of the loop

    def begin_next(self, endpoint: Endpoint) -> None:
        """Begin the attempt that waits first for this endpoint, or give it back when it waited too long."""
        delivery = endpoint.waiting.popleft()
        if time.monotonic() > delivery.start_by:
            self._give_back_late(endpoint, delivery)
            return
        self._room.begin(endpoint)
        self._tasks.add(self._loop.create_task(self.attempt(endpoint, delivery)))

    def wake(self, endpoint: Endpoint) -> None:
        """Let the endpoint's next attempts begin, as far as it and the room allow."""
        self._room.enqueue(endpoint)
        self._room.begin_attempts()

    async def _outcome_of(self, endpoint: Endpoint, delivery: Delivery) -> Outcome | Unfit:
        """Send and return the outcome. An exception becomes one too, because the request may have been read."""
        began, event = time.monotonic(), delivery.event
        try:
            if endpoint.problem is not None:
                return _failed(endpoint.problem[0], began, endpoint.problem[1])
            if delivery.members:
                return await send_batch(self._sender, endpoint, delivery, self._clock.timestamp())
            if delivery.unreadable is not None:
                return _failed(OutcomeKind.PAYLOAD_UNREADABLE, began, delivery.unreadable)
            if event is None:
                return _failed(OutcomeKind.EVENT_GONE, began, NO_EVENT)
            timeout_seconds = endpoint.subscription.timeout_seconds
            return await endpoint.envelope.send(
                self._sender, event, self._clock.timestamp(), timeout_seconds, delivery.attempts
            )
        except asyncio.CancelledError:
            return _failed(OutcomeKind.ABORTED, began, "the relay was told to stop at once")
        except TransformationError as error:
            return _failed(OutcomeKind.TRANSFORMATION_FAILED, began, f"transformation: {error}")
        except Exception as error:
            log.exception("%s: attempt failed inside the relay", delivery)
            return _failed(OutcomeKind.INTERNAL, began, f"{type(error).__name__} inside the relay; see its log")

    def _conclude(
        self, endpoint: Endpoint, delivery: Delivery, subscription: SubscriptionVersion, outcome: Outcome
    ) -> None:
        """Decide, and do what follows. Only here does the engine branch on a verdict's kind.

        Everything that could raise comes before the delivery leaves. `subscription` is the version at the begin of the
        attempt.
        """
        schedule, final = subscription.schedule_seconds, subscription.final_statuses
        slowed = slowed_seconds(self._endpoints, endpoint, delivery) if outcome.status in OVERLOADED else None
        verdict = decide(outcome, delivery.attempts, schedule, self._random_number(), final, slowed)
        if delivery.members:
            verdict = halve(verdict, outcome, len(delivery.members))
        if verdict.kind == VerdictKind.DEAD and delivery.lane is not None and subscription.order_policy == "block":
            verdict = keep_at_head(verdict, outcome, schedule, self._random_number())
        if outcome.kind == OutcomeKind.LOCAL:
            self.unsent.note(subscription.id, outcome.error or "")
        elif self.unsent:
            self.unsent.forget(subscription.id)
        self._room.learn(endpoint, outcome)
        if verdict.endpoint is not None and subscription.url == endpoint.subscription.url:
            endpoint.close(verdict.endpoint.seconds if isinstance(verdict.endpoint, Hold) else GONE_SECONDS)
            self._give_back_if_closed(endpoint)
        if verdict.kind == VerdictKind.RELEASE:
            self._warn_unsent(endpoint, outcome)
            self._give_back(endpoint, delivery, verdict.wait_seconds)
            return
        failed = outcome.kind != OutcomeKind.DELIVERED
        if failed or endpoint.failing:
            self._failure_log.note(endpoint, subscription, delivery, outcome, verdict)
        shown = shown_url(subscription.url, subscription.format) if failed or self._keep_all_responses else None
        noted = (failed or endpoint.ailing is not None) and (note_health(endpoint, failed=failed) or delivery.probe)
        settlement = Settlement.of(delivery, verdict, outcome, subscription.url, shown, noted=noted)
        self._leave(endpoint, delivery)
        self._settler.settle(settlement)

    def _part_with(self, endpoint: Endpoint, batch: Delivery, subscription: SubscriptionVersion, unfit: Unfit) -> None:
        """Decide each member that has no body alone, and give back the others: they are another batch now."""
        self._leave(endpoint, batch)
        for member, outcome in unfit.members:
            verdict = decide(outcome, member.attempts, subscription.schedule_seconds, self._random_number())
            shown = shown_url(subscription.url, subscription.format)
            self._settler.settle(Settlement.of(member, verdict, outcome, subscription.url, shown))
        for member in unfit.others:
            self._settler.release(member, 0.0)

    def _warn_unsent(self, endpoint: Endpoint, outcome: Outcome) -> None:
        """Log that nothing was sent, since no attempt row says so.

        Log at most one line in ten seconds; for a missing key, one for each subscription.
        """
        now = time.monotonic()
        if outcome.kind == OutcomeKind.KEY_UNAVAILABLE:
            if now >= endpoint.warned_at + WARN_EVERY_SECONDS:
                endpoint.warned_at = now
                log.warning("%s; what is due is tried again every minute", outcome.error)
        elif now >= self._warned_at + WARN_EVERY_SECONDS:
            self._warned_at = now
            log.warning("this machine cannot send: %s; what is due is tried again every second", outcome.error)

    def _give_back_if_closed(self, endpoint: Endpoint) -> None:
        if not endpoint.is_open:
            self._endpoints.note_closed(endpoint)
            self.give_back_waiting(endpoint, but_probes=not endpoint.is_closed_for_good)

    def give_back_waiting(self, endpoint: Endpoint, *, but_probes: bool = False) -> None:
        """Give back what has not begun for this endpoint. What a probe waits for is a limit's slot, not the breaker."""
        kept = [delivery for delivery in endpoint.waiting if but_probes and delivery.probe]
        while endpoint.waiting:
            if (delivery := endpoint.waiting.popleft()) not in kept:
                self._give_back(endpoint, delivery, 0.0)
        endpoint.waiting.extend(kept)

    def _give_back_late(self, endpoint: Endpoint, delivery: Delivery) -> None:
        """Give back what may not begin any more: it could end after its lease. Log how many, a line in ten seconds."""
        self._give_back(endpoint, delivery, 0.0)
        self._late += 1
        now = time.monotonic()
        if now >= self._late_said_at + WARN_EVERY_SECONDS:
            log.warning("%d deliveries given back, uncharged: their time to begin had passed", self._late)
            self._late, self._late_said_at = 0, now

    def _give_back(self, endpoint: Endpoint, delivery: Delivery, seconds: float) -> None:
        self._leave(endpoint, delivery)
        self._settler.release(delivery, seconds)

    def _leave(self, endpoint: Endpoint, delivery: Delivery) -> None:
        self._leased -= 1
        self._room.leave(endpoint, delivery)
        if delivery.suspect:
            self._suspect.note_ended(delivery)


def _failed(kind: OutcomeKind, began: float, error: str) -> Outcome:
    return Outcome(kind, None, milliseconds_since(began), error)
