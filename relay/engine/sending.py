"""Send and decide: a leased delivery waits here, is sent once, and its result goes to the settler."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from outbox.formats import shown_url
from relay.engine.ailing import note_health
from relay.engine.attempts import Attempt, Attempts
from relay.engine.batches import Unfit
from relay.engine.failure_log import FailureLog
from relay.engine.judging import Judge
from relay.engine.transforming import Transforming
from relay.engine.unsent import Unsent, warn_held_for_good
from relay.model.decide import decide
from relay.model.health_sign import OUR_OWN
from relay.model.outcome import DELIVERED, OutcomeKind
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
    from relay.message.evaluator_process.evaluator import Evaluator
    from relay.model.delivery import Delivery
    from relay.model.outcome import Outcome
    from relay.model.subscription import SubscriptionVersion

__all__ = ["Sending"]

log = logging.getLogger("relay.engine")

WARN_EVERY_SECONDS = 10.0
# After a 410 the database disables the subscription with the result. If it cannot, because somebody has locked the
# subscription, the endpoint is asked again after this time.
GONE_SECONDS = 60.0
# An attempt that ended in an error of our own is due again after this time: the error will mostly come again.
OWN_ERROR_SECONDS = 60.0


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
        evaluator: Evaluator,
        *,
        keep_all_responses: bool,
        random_number: Callable[[], float],
    ) -> None:
        self._settler = settler
        self._endpoints = endpoints
        self._room = room
        self._suspect = suspect
        self.evaluator = evaluator
        self._keep_all_responses = keep_all_responses
        self._judge = Judge(endpoints, random_number)
        self._attempts = Attempts(sender, clock, Transforming(room, evaluator), self._end)
        self._leased = 0
        self.unsent = Unsent()
        self._failure_log = FailureLog()
        self._late = 0  # given back since the log last said so
        self._late_said_at = -WARN_EVERY_SECONDS

    @property
    def leased(self) -> int:
        """How many deliveries are held, unbegun or on the wire."""
        return self._leased

    @property
    def idle(self) -> bool:
        """Whether nothing is leased."""
        return not self._leased

    @property
    def has_unbegun(self) -> bool:
        """Whether anything leased has not begun."""
        return self._leased > len(self._attempts)

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
        """Store subscriptions that were read; give back what has not begun for those that are not sendable."""
        for subscription in subscriptions:
            endpoint = self._endpoints.update(subscription, self)
            if subscription.held_for_good:
                warn_held_for_good(endpoint)
            self._give_back_unless_sendable(endpoint)
            if endpoint.unbegun:
                self.wake(endpoint)  # what it waited for may be a limit that is gone

    def admit(self, deliveries: Iterable[Delivery]) -> None:
        """Take leased deliveries in, and begin the attempts that may begin now.

        Call `refresh` before: a delivery of an unknown subscription is skipped.
        """
        fed: set[Endpoint] = set()
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
                fed.add(endpoint)
        for endpoint in fed:
            self._give_back_unless_sendable(endpoint)
        self._room.begin_attempts()

    def give_back(self, delivery: Delivery) -> None:
        """Give back a leased delivery that was never admitted."""
        self._settler.release(delivery, 0.0)

    def release_unbegun(self) -> None:
        """Give back everything that has not begun; the engine stops."""
        for endpoint in self._endpoints:
            self.give_back_unbegun(endpoint)

    def release_late(self) -> None:
        """Give back what found no place in time, before its lease ends: it would become a suspect."""
        now = time.monotonic()
        for endpoint in self._endpoints:
            unbegun = endpoint.unbegun
            while unbegun and now > unbegun[0].start_by + endpoint.timeout_of(unbegun[0]):
                self._give_back_late(endpoint, unbegun.pop(0))

    async def finish(self) -> None:
        """Wait until nothing is on the wire."""
        await self._attempts.finish()

    async def abort(self) -> None:
        """Cut what is still on the wire; each ends as a failed attempt, because its request may have been read."""
        await self._attempts.abort()
        self._failure_log.tell()

    def begin_next(self, endpoint: Endpoint) -> None:
        """Begin the attempt that waits first for this endpoint, or give it back when it waited too long."""
        delivery = endpoint.unbegun.pop(0)
        if time.monotonic() > delivery.start_by:
            self._give_back_late(endpoint, delivery)
            return
        self._room.begin(endpoint)
        self._attempts.begin(endpoint, delivery)

    def _end(self, attempt: Attempt, outcome: Outcome | Unfit | None) -> None:
        """Decide and settle; None: nothing was sent. Whatever raises on the way, its places come free.

        The order matters: the request is counted off before the endpoint is queued again.
        """
        endpoint, delivery, subscription = attempt
        self._room.end(endpoint)
        try:
            if outcome is None and time.monotonic() <= delivery.start_by:  # it was cut
                self._give_back(endpoint, delivery, 0.0)
            elif outcome is None:
                self._give_back_late(endpoint, delivery)
            elif isinstance(outcome, Unfit):
                self._part_with(endpoint, delivery, subscription, outcome)
            else:
                self._conclude(endpoint, delivery, subscription, outcome)
        except Exception:
            log.exception("%s: given back; what follows from its attempt could not be concluded", delivery)
            self._give_back(endpoint, delivery, OWN_ERROR_SECONDS)
        self._room.enqueue(endpoint)
        self._room.begin_attempts_soon()

    def wake(self, endpoint: Endpoint) -> None:
        """Let the endpoint's next attempts begin, as far as it and the room allow."""
        self._room.enqueue(endpoint)
        self._room.begin_attempts()

    def _conclude(
        self, endpoint: Endpoint, delivery: Delivery, subscription: SubscriptionVersion, outcome: Outcome
    ) -> None:
        """Decide, and do what follows. Only here does the engine branch on a verdict's kind.

        Everything that could raise comes before the delivery leaves. `subscription` is the version at the begin of the
        attempt.
        """
        failed = outcome.kind != DELIVERED
        if failed:
            outcome, verdict = self._judge.of_failure(endpoint, delivery, subscription, outcome)
        else:
            verdict = decide(outcome, delivery.attempts, subscription.schedule_seconds, 0.0)
        if failed and outcome.kind == OutcomeKind.LOCAL:
            self.unsent.note(subscription.id, outcome.error or "")
        elif self.unsent:
            self.unsent.forget(subscription.id)
        self._room.learn(endpoint, outcome, subscription)
        if verdict.endpoint is not None and subscription.url == endpoint.subscription.url:
            endpoint.send_nothing_for(verdict.endpoint.seconds if isinstance(verdict.endpoint, Hold) else GONE_SECONDS)
            self._give_back_unless_sendable(endpoint)
        if failed and verdict.kind == VerdictKind.RELEASE:
            self.unsent.warn(endpoint, outcome)
            self._give_back(endpoint, delivery, verdict.wait_seconds)
            return
        if failed or endpoint.failing:
            self._failure_log.note(endpoint, subscription, delivery, outcome, verdict)
        shown = shown_url(subscription.url, subscription.format) if failed or self._keep_all_responses else None
        blamed = (failed or endpoint.ailing is not None) and outcome.kind not in OUR_OWN
        told = delivery.probe and outcome.kind != OutcomeKind.STOOD_STILL  # that probe comes again after its lease
        noted = (blamed and note_health(endpoint, failed=failed)) or told
        settlement = Settlement.of(delivery, verdict, outcome, subscription.url, shown, noted=noted)
        self._leave(endpoint, delivery)
        self._settler.settle(settlement)

    def _part_with(self, endpoint: Endpoint, batch: Delivery, subscription: SubscriptionVersion, unfit: Unfit) -> None:
        """Decide each member that has no body alone, and give back the others: they are another batch now.

        Everything that could raise comes before the batch leaves.
        """
        shown, settlements = shown_url(subscription.url, subscription.format), []
        for member, outcome in unfit.members:
            verdict = self._judge.of_member(member, subscription, outcome)
            settlements.append(Settlement.of(member, verdict, outcome, subscription.url, shown))
        self._leave(endpoint, batch)
        for settlement in settlements:
            self._settler.settle(settlement)
        for member in unfit.others:
            self._settler.release(member, 0.0)

    def _give_back_unless_sendable(self, endpoint: Endpoint) -> None:
        if not endpoint.is_sendable:
            self._endpoints.note_not_sendable(endpoint)
            self.give_back_unbegun(endpoint, but_probes=not endpoint.needs_new_version)

    def give_back_unbegun(self, endpoint: Endpoint, *, but_probes: bool = False) -> None:
        """Give back what has not begun for this endpoint. What a probe waits for is a limit's slot, not the breaker."""
        kept = [delivery for delivery in endpoint.unbegun if but_probes and delivery.probe]
        while endpoint.unbegun:
            if (delivery := endpoint.unbegun.pop(0)) not in kept:
                self._give_back(endpoint, delivery, 0.0)
        endpoint.unbegun.extend(kept)

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
