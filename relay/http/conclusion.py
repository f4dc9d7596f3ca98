"""What an answer, or that none came, means: the outcome of the attempt, and whether its connection may be used on."""

from __future__ import annotations

from http import HTTPStatus

from relay.http.reader import Answer, Lost
from relay.http.response import kind_of_status, retry_after_seconds
from relay.model.outcome import Outcome, OutcomeKind, milliseconds_since

__all__ = ["is_success", "needs_new_connection", "outcome_of", "unsent"]

MAX_HEADERS_KEPT = 4096


def is_success(result: Answer | Lost) -> bool:
    """Tell whether the receiver took the request."""
    return isinstance(result, Answer) and result.status // 100 == 2


def needs_new_connection(result: Answer | Lost) -> bool:
    """Tell whether what a kept connection said must not count.

    It ended as if the receiver had closed it before the request came; or a 410, which disables a subscription, may come
    from where the name no longer points.
    """
    if isinstance(result, Answer):
        return result.status == HTTPStatus.GONE
    return result.kind in (OutcomeKind.CONNECTION, OutcomeKind.TLS) and not result.received


def outcome_of(result: Answer | Lost, address: str | None, started: float) -> Outcome:
    """Return the outcome of a request that was sent; `started` is `time.monotonic()`."""
    milliseconds = milliseconds_since(started)
    if isinstance(result, Lost):
        return Outcome(result.kind, None, milliseconds, result.error, address, excerpt=result.received)
    return Outcome(
        kind_of_status(result.status),
        result.status,
        milliseconds,
        address=address,
        headers=result.head[:MAX_HEADERS_KEPT].decode("latin-1"),
        excerpt=result.body,
        retry_after_seconds=retry_after_seconds(result.status, result.head),
    )


def unsent(kind: OutcomeKind, error: str, started: float, address: str | None = None) -> Outcome:
    """Return the outcome of a request of which no byte can have reached the receiver."""
    return Outcome(kind, None, milliseconds_since(started), error, address, sent=False)
