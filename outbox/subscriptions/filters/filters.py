"""A filter that was checked: it says match or no match for an event, and why, and never raises."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from outbox.subscriptions.filters.conditions import Condition, Equality, Failure
from outbox.subscriptions.filters.event import FilteredEvent, UnreadablePayload
from outbox.subscriptions.filters.work import OverBudget, Work

__all__ = ["Answer", "Explanation", "Filter", "RefusedFilter"]


class Answer(StrEnum):
    """What a filter says of an event. It gives up in all cases but two, and the event does not match then.

    What was not asked for is never sent: that cannot be taken back. What was not sent can be replayed, and is counted.
    """

    MATCH = "match"
    NO_MATCH = "no_match"
    OVER_BUDGET = "over_budget"
    """It has used up its work on this event: too many conditions on too long a list."""
    UNREADABLE = "unreadable"
    """It asks for a payload that cannot be parsed."""
    REFUSED = "refused"
    """It was stored by other means than these functions, and is no filter."""
    FAILED = "failed"
    """An error of our own; no filter may stop an event for the others."""

    @property
    def gave_up(self) -> bool:
        """Whether the filter came to no result."""
        return self not in (Answer.MATCH, Answer.NO_MATCH)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A filter's answer; for `no_match` the first condition that does not hold, for `refused` what is wrong with it."""

    answer: Answer
    failure: Failure | None = None
    problem: str = ""


class Filter:
    """Compiled once, asked any number of times. `text` is its canonical JSON."""

    __slots__ = ("_condition", "equality", "text")

    def __init__(self, condition: Condition, text: str) -> None:
        self._condition = condition
        self.text = text
        self.equality: Equality | None = condition.equality()

    def answer(self, event: FilteredEvent) -> Answer:
        """Ask it about an event."""
        allowed = event.steps
        work = Work(allowed)
        try:
            return Answer.MATCH if self._condition.holds(event, work) else Answer.NO_MATCH
        except OverBudget:
            return Answer.OVER_BUDGET
        except UnreadablePayload:
            return Answer.UNREADABLE
        except Exception:  # noqa: BLE001 - whatever it is, the other subscriptions get the event
            return Answer.FAILED
        finally:
            event.work.left -= allowed - work.left

    def explain(self, event: FilteredEvent) -> Explanation:
        """Ask it about an event, and why it does not match."""
        answer = self.answer(event)
        if answer is not Answer.NO_MATCH:
            return Explanation(answer)
        try:
            return Explanation(answer, self._condition.failure(event, (), Work(event.steps)))
        except OverBudget:
            return Explanation(answer)


class RefusedFilter(Filter):
    """What stands in a filter's column and is none: it matches nothing, and says why."""

    __slots__ = ("_problem",)

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(Condition(None), text)
        self._problem = problem

    def answer(self, _event: FilteredEvent) -> Answer:
        """Give up."""
        return Answer.REFUSED

    def explain(self, event: FilteredEvent) -> Explanation:
        """Give up, and say why."""
        return Explanation(self.answer(event), problem=self._problem)
