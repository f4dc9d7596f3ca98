"""Make a verdict from an outcome. Pure: no clock, no database; the random number is passed in."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from relay.model.outcome import DELIVERED, RETRY_AFTER_MAX_SECONDS, OutcomeKind
from relay.model.verdict import Disable, Hold, Verdict, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.outcome import Outcome

__all__ = ["GONE", "JITTER", "OWN_PAUSES", "decide", "halve", "keep_at_head"]

WELL = Verdict(VerdictKind.DELIVERED)
GONE = Disable("the endpoint answered 410 Gone")
JITTER = 0.1  # a retry waits its delay and up to this fraction more, never less
# Seconds for which this process holds an endpoint back after a fault of its own. The endpoint's other deliveries would
# fail in the same way: a long backlog would be leased and given back thousands of times a second.
OWN_PAUSES = {OutcomeKind.LOCAL: 1.0, OutcomeKind.KEY_UNAVAILABLE: 60.0}

# The attempt had no body to send, and another attempt would have no body either.
NO_BODY = (
    OutcomeKind.EVENT_GONE, OutcomeKind.PAYLOAD_UNREADABLE, OutcomeKind.UNFORMATTED, OutcomeKind.TRANSFORMATION_FAILED,
)  # fmt: skip


def decide(
    outcome: Outcome,
    attempts: int,
    schedule_seconds: Sequence[int],
    random_number: float,
    final_statuses: Sequence[int] = (),
    uncharged_seconds: float | None = None,
) -> Verdict:
    """Return the verdict on the outcome of attempt number `attempts` (from 1).

    Where the outcome has a reading of its answer, the reading counts before the status. A reading disables the endpoint
    only after a retry, or where none follows. The first attempt may use a connection that was kept open, which may lead
    to where the endpoint's name no longer points; a retry uses no connection that is older than the failure.

    410 Gone is about the endpoint: it is disabled, and the delivery waits with all others until a person resumes it.
    Retry-After is about the endpoint too: it holds the endpoint back even after the last attempt of a delivery. The
    delivery waits as its schedule says, and until the hold ends or a person lifts it.

    Args:
        outcome: what the network said.
        attempts: attempts charged so far, this one included.
        schedule_seconds: delays after the first, second, … failure; when they are used up the delivery is dead.
        random_number: in [0, 1), for the jitter.
        final_statuses: statuses after which the delivery is dead at once.
        uncharged_seconds: when this one is due again, uncharged, since the fault is the sender's: it sent too fast to
            an endpoint that takes other requests (429, 503), or it stood still and saw no answer.
    """
    if outcome.kind == DELIVERED:
        return WELL if outcome.retry_after_seconds is None else _delivered_and_hold(outcome.retry_after_seconds)
    if pause := OWN_PAUSES.get(outcome.kind):
        return Verdict(VerdictKind.RELEASE, pause, Hold(pause))
    reading, last = outcome.reading, attempts > len(schedule_seconds)
    if reading is not None and reading.disables and (attempts > 1 or last):
        return Verdict(VerdictKind.DEAD, endpoint=Disable(reading.reason))
    if outcome.status == HTTPStatus.GONE and reading is None:
        return Verdict(VerdictKind.RETRY, endpoint=GONE)
    asked = min(outcome.retry_after_seconds or 0.0, RETRY_AFTER_MAX_SECONDS)
    hold = Hold(asked, outcome.scope) if asked else None
    if uncharged_seconds is not None:
        return Verdict(VerdictKind.RETRY, uncharged_seconds * (1 + JITTER * random_number), hold, charged=False)
    if last or outcome.kind in NO_BODY or _is_final(outcome, final_statuses):
        return Verdict(VerdictKind.DEAD, endpoint=hold)
    delay = schedule_seconds[attempts - 1] * (1 + JITTER * random_number)
    return Verdict(VerdictKind.RETRY, delay, hold)


# About the time or the endpoint, not about what was sent: the same batch is tried again.
_NOT_OF_THE_BODY = frozenset({
    HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GONE, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS,
})  # fmt: skip


def halve(verdict: Verdict, outcome: Outcome, members: int) -> Verdict:
    """Return what becomes of a batch: where one of its events may be the cause, its halves are tried apart, at once.

    That is after a 4xx, and where it would be dead; no event is, unless it fails alone. The attempt is given back,
    since it says nothing of most of them.
    """
    refused = outcome.status is not None and 400 <= outcome.status <= 499 and outcome.status not in _NOT_OF_THE_BODY
    if members < 2 or not (verdict.kind == VerdictKind.DEAD or (verdict.kind == VerdictKind.RETRY and refused)):
        return verdict
    return Verdict(VerdictKind.RETRY, endpoint=verdict.endpoint, halves=True)


def _is_final(outcome: Outcome, final_statuses: Sequence[int]) -> bool:
    if outcome.status in final_statuses:  # the subscription's own word
        return True
    return outcome.reading is not None and outcome.reading.final


def _delivered_and_hold(seconds: float) -> Verdict:
    return Verdict(VerdictKind.DELIVERED, endpoint=Hold(min(seconds, RETRY_AFTER_MAX_SECONDS)))


BLOCKED_SECONDS = 300.0  # between attempts of a head that blocks its lane, where its schedule has no delay
BLOCKED_MIN_SECONDS = 1.0


def keep_at_head(verdict: Verdict, outcome: Outcome, schedule_seconds: Sequence[int], random_number: float) -> Verdict:
    """Return what order_policy `block` makes of a head's verdict DEAD: it is tried again with its last delay, for ever.

    What has no body and never will is dead all the same.
    """
    if outcome.kind in NO_BODY:
        return verdict
    delay = max(float(schedule_seconds[-1]), BLOCKED_MIN_SECONDS) if schedule_seconds else BLOCKED_SECONDS
    return verdict._replace(kind=VerdictKind.RETRY, wait_seconds=delay * (1 + JITTER * random_number))
