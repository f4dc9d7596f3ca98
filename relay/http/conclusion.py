"""What an answer, or that none came, means: the outcome of the attempt, and whether its connection may be used on."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from relay.http.reader import Answer, Lost
from relay.http.response import retry_after_seconds
from relay.model.outcome import DELIVERED, OVERLOADED, Outcome, OutcomeKind, milliseconds_since

if TYPE_CHECKING:
    from relay.http.begun import Request

__all__ = ["is_success", "needs_new_connection", "outcome_of", "unsent"]

STILL_SECONDS = 1.0
"""A request that fails so long after its deadline was kept by its own process, which was stopped or far too busy.

Each step of a request ends by a timer at its deadline; only a loop that did not turn lets one fire later.
"""
_GONE = int(HTTPStatus.GONE)
OF_TIME = frozenset({OutcomeKind.TIMEOUT, OutcomeKind.CONNECTION, OutcomeKind.DNS, OutcomeKind.TLS})
"""Failures that may have come of nobody's reading on; the others say what somebody answered."""


def is_success(result: Answer | Lost) -> bool:
    """Tell whether the receiver took the request."""
    return result.kind is DELIVERED


def needs_new_connection(result: Answer | Lost) -> bool:
    """Tell whether what a kept connection said must not count.

    It ended as if the receiver had closed it before the request came; or a 410, which disables a subscription, may come
    from where the name no longer points.
    """
    if isinstance(result, Answer):
        return result.status == _GONE
    return result.kind in (OutcomeKind.CONNECTION, OutcomeKind.TLS) and not result.received


def outcome_of(result: Answer | Lost, address: str | None, request: Request) -> Outcome:
    """Return the outcome of a request that was sent."""
    milliseconds = milliseconds_since(request.started)
    if isinstance(result, Lost):
        kind, error = _whose_fault(result.kind, result.error, request)
        return Outcome(kind, None, milliseconds, error, address, excerpt=result.received)
    status = result.status
    asked = retry_after_seconds(status, result.head) if status in OVERLOADED else None
    return Outcome(result.kind, status, milliseconds, None, address, result.headers, result.body, asked)


def unsent(kind: OutcomeKind, error: str, request: Request, address: str | None = None) -> Outcome:
    """Return the outcome of a request of which no byte can have reached the receiver."""
    kind, error = _whose_fault(kind, error, request)
    return Outcome(kind, None, milliseconds_since(request.started), error, address, sent=False)


def _whose_fault(kind: OutcomeKind, error: str, request: Request) -> tuple[OutcomeKind, str]:
    """Return the failure as it is, or that this process stood still: what ends at the deadline did so far too late."""
    late = time.monotonic() - request.deadline
    if late < STILL_SECONDS or kind not in OF_TIME:
        return kind, error
    return OutcomeKind.STOOD_STILL, f"{error}; but this relay itself stood still, and saw that {late:.0f} s late"
