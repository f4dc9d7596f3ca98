"""What filters said of events, and which matches of a take are left by that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from outbox.subscriptions.filters import Answer
from relay.store.filters import Answers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from outbox.subscriptions.filters import FilteredEvent, FilterSet
    from relay.store.filters import PassedOver
    from relay.store.rows import Match

__all__ = ["Kind", "Passing", "Split", "answer_all", "answered"]

Kind = tuple[str, str]
"""Tenant and type."""


class Passing(NamedTuple):
    """What a take passes over; `names` are all filters that the events of this kind were asked by."""

    kind: Kind
    names: AbstractSet[bytes]
    over: PassedOver


class Split:
    """The matches of one kind of event in a take: those without a filter, and the others by its hash."""

    def __init__(self, matches: Sequence[Match]) -> None:
        self.plain = [match for match in matches if match.filter_hash is None]
        self.filtered: dict[bytes, list[Match]] = {}
        for match in matches:
            if match.filter_hash is not None:
                self.filtered.setdefault(match.filter_hash, []).append(match)
        self._covering: AbstractSet[bytes] | None = None

    def is_covered(self, names: AbstractSet[bytes]) -> bool:
        """Tell whether all these filters are among those. Events in turn were asked by the very same set."""
        if names is self._covering:
            return True
        covered = self.filtered.keys() <= names
        if covered:
            self._covering = names
        return covered

    def of(self, hashes: Iterable[bytes]) -> list[Match]:
        """Return the matches that have these filters."""
        return [match for one in hashes for match in self.filtered.get(one, ())]


def answer_all(filters: FilterSet, event: FilteredEvent) -> Iterator[tuple[bytes, Answer]]:
    """Ask the filters that may match an event, each when it is its turn."""
    return ((name, one.answer(event)) for name, one in filters.candidates(event))


def answered(filters: FilterSet, found: Iterable[tuple[bytes, Answer]]) -> Answers:
    """Return what these filters said of an event."""
    told = [(name, answer) for name, answer in found if answer is not Answer.NO_MATCH]
    matched = [name for name, answer in told if answer is Answer.MATCH]
    return Answers(filters.names, matched, [name for name, answer in told if answer.gave_up])
