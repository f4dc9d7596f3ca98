"""What a receiver's answers mean where its own rules are known: the body before the status. Pure; the rules are data.

A receiver's rows are asked in order, and the first that fits decides, so the particular ones come first. An answer that
no row fits means what it means anywhere (decide.py).
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from relay.model.outcome import OutcomeKind, Reading, Scope

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from relay.model.outcome import Outcome

__all__ = ["Answer", "Means", "read_answer"]


_FLAGS = re.IGNORECASE | re.MULTILINE


class Means(StrEnum):
    """What an answer means for the delivery, and for its endpoint."""

    DELIVERED = "delivered"
    DELIVERED_HOLD = "delivered, hold"
    """Taken, and the next one would be refused: hold the endpoint for the seconds that a header names."""
    RETRY = "retry"
    HOLD = "retry, hold"
    """Not taken now: hold the endpoint back."""
    DEAD = "dead"
    """The same bytes will never be taken."""
    DISABLE = "dead, disable"
    """The endpoint takes nothing from us any more. Believed when it comes again."""


class Answer(NamedTuple):
    """One row: an answer, and what it means.

    texts: the whole body is one of these. pattern: it is found in the body. lines: it is found in the header lines.
    seconds: patterns whose group is the time to hold, in the body and in the header lines; the largest counts, beside
        Retry-After. otherwise: the seconds where none is named; None leaves that to the schedule.
    scope: of a hold, whom it is about.
    """

    statuses: Container[int]
    means: Means
    why: str
    texts: tuple[bytes, ...] = ()
    pattern: str = ""
    lines: str = ""
    seconds: tuple[str, ...] = ()
    otherwise: float | None = None
    scope: Scope = Scope.ENDPOINT


def read_answer(outcome: Outcome, answers: Sequence[Answer]) -> Outcome:
    """Return the outcome as this receiver means its answer; as it is where no row fits, or nothing was answered."""
    if outcome.status is None:
        return outcome
    answer = next((row for row in answers if _fits(row, outcome, outcome.status)), None)
    if answer is None or answer.means == Means.DELIVERED:
        return outcome
    if answer.means == Means.DELIVERED_HOLD:
        return outcome._replace(retry_after_seconds=_seconds_of(answer, outcome))
    kind = OutcomeKind.NOT_TAKEN if outcome.kind == OutcomeKind.DELIVERED else outcome.kind
    if answer.means == Means.HOLD:
        return outcome._replace(kind=kind, retry_after_seconds=_seconds_of(answer, outcome), scope=answer.scope)
    reading = Reading(answer.why, final=answer.means == Means.DEAD, disables=answer.means == Means.DISABLE)
    return outcome._replace(kind=kind, reading=reading, error=answer.why)


def _fits(row: Answer, outcome: Outcome, status: int) -> bool:
    if status not in row.statuses or (row.texts and outcome.excerpt.strip() not in row.texts):
        return False
    if row.pattern and not re.search(row.pattern.encode(), outcome.excerpt):
        return False
    return not row.lines or re.search(row.lines, outcome.headers or "", _FLAGS) is not None


def _seconds_of(row: Answer, outcome: Outcome) -> float | None:
    """Return how long to hold, whole seconds rounded up."""
    text = f"{outcome.headers or ''}\n\n{outcome.excerpt.decode('utf-8', 'replace')}"
    found = [float(match[1]) for pattern in row.seconds for match in re.finditer(pattern, text, _FLAGS)]
    asked = [*found, *([] if outcome.retry_after_seconds is None else [outcome.retry_after_seconds])]
    return float(math.ceil(max(asked))) if asked else row.otherwise
