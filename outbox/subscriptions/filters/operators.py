"""The conditions of the operators that compare a value: $eq, $ne, $gt, $in, $exists, $startsWith, $contains."""

# ruff: noqa: D102 - what a condition overrides is documented at Condition

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from outbox.subscriptions.filters.conditions import Condition, Equality
from outbox.subscriptions.filters.values import MISSING, Scalars, is_number, same
from outbox.subscriptions.filters.work import Work

__all__ = ["Affix", "Contains", "Differs", "Equal", "Exists", "In", "NotIn", "Order"]


class Equal(Condition):
    """$eq: the whole value is equal; the operand is data."""

    __slots__ = ("_wanted",)

    def __init__(self, source: Any, wanted: Any) -> None:
        super().__init__(source)
        self._wanted = wanted

    def holds(self, value: Any, _work: Work) -> bool:
        return value is not MISSING and same(self._wanted, value)

    def equality(self) -> Equality | None:
        return None if type(self._wanted) in (dict, list) else ((), self._wanted)


class Differs(Condition):
    """$ne: there, and not equal."""

    __slots__ = ("_unwanted",)

    def __init__(self, source: Any, unwanted: Any) -> None:
        super().__init__(source)
        self._unwanted = unwanted

    def holds(self, value: Any, _work: Work) -> bool:
        return value is not MISSING and not same(self._unwanted, value)


class Order(Condition):
    """$gt, $gte, $lt, $lte: a number against a number, or a text against a text by code point."""

    __slots__ = ("_bound", "_compare", "_of_numbers")

    def __init__(self, source: Any, compare: Callable[[Any, Any], bool], bound: Any) -> None:
        super().__init__(source)
        self._compare = compare
        self._bound = bound
        self._of_numbers = is_number(bound)

    def holds(self, value: Any, _work: Work) -> bool:
        alike = is_number(value) if self._of_numbers else type(value) is str
        return alike and self._compare(value, self._bound)


class In(Condition):
    """$in: one of the listed scalars, or a list that has one among its elements."""

    __slots__ = ("_scalars",)

    def __init__(self, source: Any, values: Sequence[Any]) -> None:
        super().__init__(source)
        self._scalars = Scalars(values)

    def holds(self, value: Any, work: Work) -> bool:
        if type(value) is list:
            work.spend(len(value))
            return any(map(self._scalars.has, value))
        return self._scalars.has(value)


class NotIn(In):
    """$nin: there, and neither it nor any of its elements is listed."""

    __slots__ = ()

    def holds(self, value: Any, work: Work) -> bool:
        return value is not MISSING and not super().holds(value, work)


class Exists(Condition):
    """$exists: whether the field is there; null is."""

    __slots__ = ("_wanted",)

    def __init__(self, source: Any, wanted: bool) -> None:  # noqa: FBT001 - the operand
        super().__init__(source)
        self._wanted = wanted

    def holds(self, value: Any, _work: Work) -> bool:
        return (value is not MISSING) is self._wanted


class Affix(Condition):
    """$startsWith and $endsWith: a text that begins, or ends, with one of these."""

    __slots__ = ("_test", "_texts")

    def __init__(self, source: Any, test: Callable[[str, tuple[str, ...]], bool], texts: Sequence[str]) -> None:
        super().__init__(source)
        self._test = test
        self._texts = tuple(texts)

    def holds(self, value: Any, _work: Work) -> bool:
        return type(value) is str and self._test(value, self._texts)


class Contains(Condition):
    """$contains: a text within the text, or an element equal to the scalar."""

    __slots__ = ("_part", "_scalars")

    def __init__(self, source: Any, part: Any) -> None:
        super().__init__(source)
        self._part = part
        self._scalars = Scalars([part])

    def holds(self, value: Any, work: Work) -> bool:
        if type(value) is str:
            return type(self._part) is str and self._part in value
        if type(value) is list:
            work.spend(len(value))
            return any(map(self._scalars.has, value))
        return False
