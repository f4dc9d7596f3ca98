"""What an attempt says of the health of its endpoint. Pure.

A breaker is closed while its endpoint answers; open while nothing is sent to it; half-open while one delivery, the
probe, is under way. `relay.store.breaker` moves it in the transaction that settles.
"""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING

from relay.model.outcome import NOT_ASKED, OutcomeKind
from relay.model.verdict import Disable, Hold

if TYPE_CHECKING:
    from relay.model.verdict import Verdict

__all__ = ["OUR_OWN", "RESERVED", "Sign", "sign_of"]

RESERVED = b"relay."
"""How the types of events about the relay itself begin."""


class Sign(Enum):
    """What an attempt's end says of its endpoint."""

    SUCCESS = auto()
    FAILURE = auto()
    """It did not take the delivery."""
    SLOW_DOWN = auto()
    """It takes nothing now, and said so: its Retry-After rules, not the breaker. But it is no success."""
    NOTHING = auto()
    """The attempt was about ourselves, or the endpoint is gone for good."""


# An address that the policy forbids is the endpoint's.
OUR_OWN = NOT_ASKED - {OutcomeKind.BLOCKED_ADDRESS} | {
    *(OutcomeKind.ABORTED, OutcomeKind.INTERNAL, OutcomeKind.STOOD_STILL),
}
"""Outcomes that the endpoint is not to blame for."""


def sign_of(outcome: OutcomeKind, status: int | None, verdict: Verdict) -> Sign:
    """Return what an attempt that ended so says of its endpoint. A 4xx is a failure: the endpoint takes nothing.

    Of a batch that is halved for it, it says that it did not like one event.
    """
    if outcome == OutcomeKind.DELIVERED:
        return Sign.SUCCESS
    if outcome in OUR_OWN or isinstance(verdict.endpoint, Disable):
        return Sign.NOTHING
    if verdict.halves and outcome == OutcomeKind.HTTP_4XX:
        return Sign.NOTHING
    if outcome == OutcomeKind.SLOWED or isinstance(verdict.endpoint, Hold) or status == HTTPStatus.TOO_MANY_REQUESTS:
        return Sign.SLOW_DOWN
    return Sign.FAILURE
