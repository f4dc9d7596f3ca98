"""The verdict on an attempt that failed: what model/decide.py says, with what this process has seen besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.engine.slowing import slowed_seconds
from relay.engine.standstill import Standstill
from relay.model.decide import decide, halve, keep_at_head
from relay.model.outcome import OVERLOADED, OutcomeKind
from relay.model.verdict import VerdictKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.engine.endpoint import Endpoint
    from relay.engine.endpoint_registry import Endpoints
    from relay.model.delivery import Delivery
    from relay.model.outcome import Outcome
    from relay.model.subscription import SubscriptionVersion
    from relay.model.verdict import Verdict

__all__ = ["Judge"]

PERHAPS_UNCHARGED = OVERLOADED | {None}


class Judge:
    """Judges the failures of one engine. `random_number`: from [0, 1), for the jitter of retries."""

    def __init__(self, endpoints: Endpoints, random_number: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._random_number = random_number
        self._standstill = Standstill()

    def of_failure(
        self, endpoint: Endpoint, delivery: Delivery, subscription: SubscriptionVersion, outcome: Outcome
    ) -> tuple[Outcome, Verdict]:
        """Return the outcome as it counts, and the verdict. `subscription`: the version that was sent with."""
        schedule, uncharged = subscription.schedule_seconds, None
        if outcome.status in PERHAPS_UNCHARGED:
            outcome, uncharged = self._weigh(endpoint, delivery, outcome)
        final, number = subscription.final_statuses, self._random_number()
        verdict = decide(outcome, delivery.attempts, schedule, number, final, uncharged)
        if delivery.members:
            verdict = halve(verdict, outcome, len(delivery.members))
        if verdict.kind == VerdictKind.DEAD and delivery.lane is not None and subscription.order_policy == "block":
            verdict = keep_at_head(verdict, outcome, schedule, self._random_number())
        return outcome, verdict

    def of_member(self, member: Delivery, subscription: SubscriptionVersion, outcome: Outcome) -> Verdict:
        """Return the verdict on a member of a batch of which nothing was sent."""
        return decide(outcome, member.attempts, subscription.schedule_seconds, self._random_number())

    def _weigh(self, endpoint: Endpoint, delivery: Delivery, outcome: Outcome) -> tuple[Outcome, float | None]:
        """Return the outcome, and in how many seconds to try again, uncharged; None where it is an ordinary one."""
        if outcome.kind == OutcomeKind.STOOD_STILL:
            return self._standstill.weigh(delivery, outcome)
        return outcome, None if outcome.status is None else slowed_seconds(self._endpoints, endpoint, delivery)
