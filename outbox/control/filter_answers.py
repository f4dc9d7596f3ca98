"""What a filter says of an event, in words."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.subscriptions.filters import Answer, Filter, FilteredEvent
from outbox.subscriptions.filters import Explanation as FilterExplanation

__all__ = ["FilterTest", "ask_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterTest:
    """What a filter says of an event; path, condition and found tell the first condition that does not hold."""

    matches: bool
    answer: str
    detail: str
    path: str | None
    condition: str | None
    found: str | None
    filter: str | None


_GIVEN_UP = {
    Answer.OVER_BUDGET: "too much work on this event: too many conditions on a long list",
    Answer.UNREADABLE: "the payload cannot be parsed: it is nested too deeply, or takes too much memory",
    Answer.REFUSED: "what is stored is no filter",
    Answer.FAILED: "an error of our own; please report it",
}


def ask_filter(one: Filter, event: FilteredEvent) -> FilterTest:
    """Return what this filter says of this event."""
    said = one.explain(event)
    path, condition, found = said.failure or (None, None, None)
    return FilterTest(
        matches=said.answer is Answer.MATCH,
        answer=str(said.answer),
        detail=_words(said),
        path=path,
        condition=condition,
        found=found,
        filter=None if one.text == "{}" else one.text,
    )


def _words(said: FilterExplanation) -> str:
    if said.answer.gave_up:
        return f"its filter came to no result: {said.problem or _GIVEN_UP[said.answer]}"
    if said.failure is None:
        return "its filter lets the event through" if said.answer is Answer.MATCH else "its filter does not match"
    path, condition, found = said.failure
    return f"its filter wants {condition}{f' at {path}' if path else ''}: {found}"
