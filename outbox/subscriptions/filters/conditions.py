"""The conditions of a filter; operators.py has those that compare. Each holds for a value, or tells why it does not.

A condition gets the value at its place, MISSING where there is none, and the work that is left to it. It never raises,
but for OverBudget. Lists are walked without recursion, so that a payload's depth is of no account; a filter's own
depth is bounded.
"""
# ruff: noqa: D102 - what a condition overrides is documented at Condition

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from outbox.subscriptions.filters.event import FilteredEvent
from outbox.subscriptions.filters.values import MISSING, Scalars, brief_json, canonical, path_of
from outbox.subscriptions.filters.work import Work

__all__ = [
    "And",
    "Condition",
    "Equality",
    "EventField",
    "Every",
    "Failure",
    "Field",
    "Not",
    "Object",
    "Or",
    "Plain",
    "scalar_of",
]

Equality = tuple[tuple[str, ...], Any]
"""A path of fields and the scalar that must stand there."""


class Failure(NamedTuple):
    """The first condition that does not hold: where, what it asks for as JSON, and what is there."""

    path: str
    condition: str
    found: str


class Condition:
    """Something that is asked of a value. `source` is the JSON that it was made from, `size` how many nodes it has."""

    __slots__ = ("size", "source")

    def __init__(self, source: Any, size: int = 1) -> None:
        self.source = source
        self.size = size

    def holds(self, value: Any, work: Work) -> bool:
        """Tell whether it holds for this value, which is MISSING where there is none."""
        raise NotImplementedError

    def failure(self, value: Any, path: tuple[str, ...], _work: Work) -> Failure:
        """Return why it does not hold; ask only where it does not."""
        return Failure(path_of(path), _brief(self.source), brief_json(value))

    def equality(self) -> Equality | None:
        """Return a scalar that has to stand at a path if this is to hold, or None where no such thing is asked for.

        It says nothing of a value that has a list on this path: plain values look into lists.
        """
        return None


def _brief(source: Any) -> str:
    text = canonical(source)
    return text if len(text) <= 200 else text[:199] + "…"


def any_within(values: list[Any], test: Callable[[Any, Work], bool], cost: int, work: Work) -> bool:
    """Tell whether any element passes, of the list or of lists within it. `cost`: steps for each object among them."""
    unvisited = [values]
    while unvisited:
        current = unvisited.pop()
        work.spend(len(current))
        for element in current:
            kind = type(element)
            if kind is list:
                unvisited.append(element)
                continue
            if kind is dict:
                work.spend(cost)
            if test(element, work):
                return True
    return False


class Plain(Condition):
    """A plain scalar: equal to it, or a list that has it at any depth. Alternatives of scalars are one of these."""

    __slots__ = ("_scalars", "_values")

    def __init__(self, source: Any, values: Sequence[Any]) -> None:
        super().__init__(source, len(values))
        self._values = values
        self._scalars = Scalars(values)

    def holds(self, value: Any, work: Work) -> bool:
        if type(value) is list:
            return any_within(value, self._scalars.has, 0, work)
        return self._scalars.has(value)

    def equality(self) -> Equality | None:
        return ((), self._values[0]) if len(self._values) == 1 else None


class Every(Condition):
    """A plain list: each of its entries is met by some element."""

    __slots__ = ("_entries",)

    def __init__(self, source: Any, entries: Sequence[Condition]) -> None:
        super().__init__(source, 1 + sum(entry.size for entry in entries))
        self._entries = entries

    def holds(self, value: Any, work: Work) -> bool:
        return type(value) is list and all(_some(value, entry, work) for entry in self._entries)


def _some(values: list[Any], entry: Condition, work: Work) -> bool:
    for element in values:
        work.spend(entry.size if type(element) is dict else 1)
        if entry.holds(element, work):
            return True
    return False


class _All(Condition):
    """All of these hold for the value as it is."""

    __slots__ = ("_members",)

    def __init__(self, source: Any, members: Sequence[Condition]) -> None:
        super().__init__(source, 1 + sum(member.size for member in members))
        self._members = tuple(members)

    def holds(self, value: Any, work: Work) -> bool:
        return self._all(value, work)

    def _all(self, value: Any, work: Work) -> bool:
        for member in self._members:  # noqa: SIM110 - a generator would cost as much again
            if not member.holds(value, work):
                return False
        return True

    def failure(self, value: Any, path: tuple[str, ...], work: Work) -> Failure:
        for member in self._members:
            if not member.holds(value, work):
                return member.failure(value, path, work)
        return super().failure(value, path, work)

    def equality(self) -> Equality | None:
        return next((found for member in self._members if (found := member.equality())), None)


class And(_All):
    """$and."""

    __slots__ = ()


class Object(_All):
    """A plain object: operators and fields that must all hold.

    With a field in it, it looks into lists, and one and the same element must meet all of it.
    """

    __slots__ = ("_looks_inside",)

    def __init__(self, source: Any, members: Sequence[Condition]) -> None:
        super().__init__(source, members)
        self._looks_inside = any(isinstance(member, Field) for member in members)

    def holds(self, value: Any, work: Work) -> bool:
        if self._looks_inside and type(value) is list:
            return any_within(value, self._all, self.size, work)
        return self._all(value, work)

    def failure(self, value: Any, path: tuple[str, ...], work: Work) -> Failure:
        if self._looks_inside and type(value) is list:
            return Failure(path_of(path), f"{_brief(self.source)} in one element", brief_json(value))
        return super().failure(value, path, work)


class Field(Condition):
    """A field of an object; below whatever is no object it is missing."""

    __slots__ = ("_condition", "_name")

    def __init__(self, name: str, condition: Condition) -> None:
        super().__init__({name: condition.source}, condition.size)
        self._name = name
        self._condition = condition

    def holds(self, value: Any, work: Work) -> bool:
        return self._condition.holds(self._below(value), work)

    def _below(self, value: Any) -> Any:
        return value.get(self._name, MISSING) if type(value) is dict else MISSING

    def failure(self, value: Any, path: tuple[str, ...], work: Work) -> Failure:
        return self._condition.failure(self._below(value), (*path, self._name), work)

    def equality(self) -> Equality | None:
        found = self._condition.equality()
        return found and ((self._name, *found[0]), found[1])


class EventField(Field):
    """A field of the event itself: type, key, metadata, payload."""

    __slots__ = ()

    def _below(self, value: FilteredEvent) -> Any:
        return value.field(self._name)


class Or(Condition):
    """$or: one of them holds for the value as it is."""

    __slots__ = ("_members",)

    def __init__(self, source: Any, members: Sequence[Condition]) -> None:
        super().__init__(source, 1 + sum(member.size for member in members))
        self._members = tuple(members)

    def holds(self, value: Any, work: Work) -> bool:
        return any(member.holds(value, work) for member in self._members)

    def failure(self, value: Any, path: tuple[str, ...], _work: Work) -> Failure:
        found = "no alternative holds" if not isinstance(value, _SHOWN) else brief_json(value)
        return Failure(path_of(path), _brief(self.source), found)


_SHOWN = (str, int, float, bool, list, dict, type(None), type(MISSING))


class Not(Condition):
    """$not: the exact opposite, for missing fields and other types too."""

    __slots__ = ("_condition",)

    def __init__(self, source: Any, condition: Condition) -> None:
        super().__init__(source, 1 + condition.size)
        self._condition = condition

    def holds(self, value: Any, work: Work) -> bool:
        return not self._condition.holds(value, work)

    def failure(self, value: Any, path: tuple[str, ...], _work: Work) -> Failure:
        found = brief_json(value) if isinstance(value, _SHOWN) else "what it denies holds"
        return Failure(path_of(path), _brief(self.source), found)


def scalar_of(condition: Condition) -> list[Any]:
    """Return the scalar of a plain one, in a list; an empty list for every other condition."""
    found = condition.equality() if isinstance(condition, Plain) else None
    return [found[1]] if found else []
