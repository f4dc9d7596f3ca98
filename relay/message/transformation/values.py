"""Values of JSON as expressions see them: kinds, truth, equality and numbers, none of which ever converts another kind.

An integer is an int, any other number is Digits (or, on the way, a Decimal); true is no number, though Python says so.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from outbox.transformation import Digits
from relay.message.transformation.budget import TransformationError

if TYPE_CHECKING:
    from relay.message.transformation.budget import Budget

__all__ = [
    "EXACT",
    "NUMBERS",
    "Number",
    "absolute",
    "are_equal",
    "exact",
    "integral",
    "is_true",
    "kind_of",
    "number_in",
    "number_of",
]

Number: TypeAlias = int | Decimal

EXACT = Context(prec=60)
"""Digits that a sum or an average keeps."""

_MOST_DIGITS = 400  # of a number that is rounded or written without an exponent
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<digits>(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)")
_KINDS = {
    str: "a string", int: "a number", Digits: "a number", list: "an array", dict: "an object", bool: "a boolean",
    type(None): "null",
}  # fmt: skip
NUMBERS = (int, Digits)


def kind_of(value: object) -> str:
    """Return what a value is, in words; they are those of the signatures."""
    return _KINDS[type(value)]


def is_true(value: object) -> bool:
    """Tell whether a value counts as true: all but null, false, and what is empty. 0 is true."""
    if value is None or value is False:
        return False
    return type(value) is int or bool(value)


def number_of(value: Any, budget: Budget) -> Number:
    """Return the number that an int or a Digits is. Raises TransformationError for one out of range."""
    if type(value) is int:
        return value
    budget.spend(3 + len(value) // 20)
    try:
        return value.value  # type: ignore[no-any-return]
    except ValueError as error:
        raise TransformationError(str(error)) from None


def number_in(text: str) -> int | Digits | None:
    """Return the number that a string spells as JSON does; None where it spells none, or a very long one."""
    match = _NUMBER.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if match is None:
        return None
    return Digits.of(text) if match["digits"] else int(text)


def exact(value: Number) -> int | Digits:
    """Return a computed number as a value: without an exponent unless it is very large or small."""
    if isinstance(value, int):
        return value
    if not value.is_finite():
        raise TransformationError("a computed number is out of range")
    exponent = int(value.as_tuple().exponent)
    if exponent == 0:
        return int(value)
    return Digits.of(format(value, "f") if -_MOST_DIGITS < exponent < _MOST_DIGITS else str(value))


def integral(value: Number, *, up: bool) -> int:
    """Return the next whole number above or below."""
    if isinstance(value, int):
        return value
    if value.adjusted() > _MOST_DIGITS:
        raise TransformationError(f"a number of more than {_MOST_DIGITS} digits cannot be rounded")
    return int(value.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))


def absolute(value: int | Digits) -> int | Digits:
    """Return a number without its sign, its digits as they were written."""
    return abs(value) if type(value) is int else Digits.of(str(getattr(value, "text", "")).removeprefix("-"))


def are_equal(left: Any, right: Any, budget: Budget) -> bool:
    """Tell whether two values are the same JSON value: 1 is 1.0 and not true, members have no order."""
    pairs = [(left, right)]
    while pairs:
        left, right = pairs.pop()
        if type(left) in NUMBERS and type(right) in NUMBERS:
            if number_of(left, budget) != number_of(right, budget):
                return False
        elif type(left) is not type(right):
            return False
        elif type(left) in (list, dict):
            inside = _pairs(left, right, budget)
            if inside is None:
                return False
            pairs += inside
        else:
            if type(left) is str:
                budget.spend(min(len(left), len(right)) // 1000)
            if left != right:
                return False
    return True


def _pairs(left: Any, right: Any, budget: Budget) -> list[tuple[Any, Any]] | None:
    """Return the pairs of elements that must be equal for two arrays or objects to be; None where they cannot be."""
    if len(left) != len(right):
        return None
    budget.spend(4 * len(left) + 1)
    if type(left) is list:
        return list(zip(left, right, strict=True))
    if left.keys() != right.keys():
        return None
    return [(value, right[name]) for name, value in left.items()]
