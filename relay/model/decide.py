"""From an outcome to a verdict. Pure: no clock, no database; the dice are passed in."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from relay.model.outcome import OutcomeKind
from relay.model.verdict import Disable, Hold, Verdict, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.outcome import Outcome

__all__ = ["GONE", "JITTER", "OWN_PAUSES", "RETRY_AFTER_MAX_SECONDS", "decide"]

GONE = Disable("the endpoint answered 410 Gone")
JITTER = 0.1  # a retry waits its delay and up to this fraction more, never less
RETRY_AFTER_MAX_SECONDS = 86_400.0
# Before this process tries again what our own machine could not send, or whose secrets it cannot open. The endpoint's
# other deliveries would fare alike: a long backlog would be leased and given back thousands of times a second.
OWN_PAUSES = {OutcomeKind.LOCAL: 1.0, OutcomeKind.KEY_UNAVAILABLE: 60.0}


def decide(
    outcome: Outcome,
    attempts: int,
    schedule_seconds: Sequence[int],
    dice: float,
    final_statuses: Sequence[int] = (),
) -> Verdict:
    """Conclude from the outcome of attempt number `attempts` (from 1).

    410 Gone is about the endpoint: it is disabled, and the delivery waits with all others until a person resumes it.
    So is Retry-After, which holds the endpoint back even when it answers the last attempt of a delivery; the delivery's
    own wait is its schedule's, and ends no sooner than the hold, unless a person lifts that.

    Args:
        outcome: what the network said.
        attempts: attempts charged so far, this one included.
        schedule_seconds: delays after the first, second, … failure; when it is used up the delivery is dead.
        dice: a random number in [0, 1) for the jitter.
        final_statuses: statuses after which the subscription wants no further attempt.
    """
    if outcome.kind == OutcomeKind.DELIVERED:
        return Verdict(VerdictKind.DELIVERED)
    if pause := OWN_PAUSES.get(outcome.kind):
        return Verdict(VerdictKind.RELEASE, pause, Hold(pause))
    if outcome.status == HTTPStatus.GONE:
        return Verdict(VerdictKind.RETRY, endpoint=GONE)
    asked = min(outcome.retry_after_seconds or 0.0, RETRY_AFTER_MAX_SECONDS)
    hold = Hold(asked) if asked else None
    if outcome.kind == OutcomeKind.EVENT_GONE or outcome.status in final_statuses or attempts > len(schedule_seconds):
        return Verdict(VerdictKind.DEAD, endpoint=hold)
    delay = schedule_seconds[attempts - 1] * (1 + JITTER * dice)
    return Verdict(VerdictKind.RETRY, delay, hold)
