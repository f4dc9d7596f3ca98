"""The functions of JMESPath. Each checks its arguments, and spends what it costs before it begins."""

from __future__ import annotations

from decimal import Decimal, DecimalException
from typing import TYPE_CHECKING, Any, NamedTuple

from outbox.transformation import SIGNATURES, Digits
from relay.message.transformation import json_text
from relay.message.transformation.budget import Compiled, TransformationError
from relay.message.transformation.values import (
    EXACT,
    absolute,
    are_equal,
    exact,
    integral,
    kind_of,
    number_in,
    number_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from outbox.transformation import Node
    from relay.message.transformation.budget import Budget

__all__ = ["FUNCTIONS"]

_ANY = "any value"
_EXPRESSION = "an expression (&…)"
_NAMES = {int: "numbers", Digits: "numbers", str: "strings"}


class _Call(NamedTuple):
    """One call in an expression: what errors name."""

    name: str
    at: int

    def refuse(self, what: str) -> TransformationError:
        return TransformationError(f"{self.name}() at character {self.at + 1}: {what}")


def _calls(function: Callable[..., Any]) -> Callable[[Node, list[Compiled]], Compiled]:
    """Return what makes a call of a function (of the call, the budget and its arguments) from its node."""

    def make(node: Node, parts: list[Compiled]) -> Compiled:
        call, signature = _Call(node.value, node.at), SIGNATURES[node.value]
        kinds = [signature.kinds_of(place) for place in range(len(parts))]
        arguments = [
            (part, None if _ANY in allowed else allowed)
            for part, allowed in zip(parts, kinds, strict=True)
        ]  # fmt: skip

        def run(value: Any, budget: Budget) -> Any:
            given = []
            for place, (part, allowed) in enumerate(arguments, start=1):
                if allowed is not None and _EXPRESSION in allowed:
                    given.append(part)
                    continue
                argument = part.run(value, budget)
                if allowed is not None and (kind := kind_of(argument)) not in allowed:
                    raise call.refuse(f"argument {place} is {kind}; it takes {' or '.join(allowed)}")
                given.append(argument)
            return function(call, budget, *given)

        own = sum(part.steps for part, allowed in arguments if not allowed or _EXPRESSION not in allowed)
        return Compiled(run, own + 5 * len(parts) + 6)

    return make


def _abs(_call: _Call, _budget: Budget, number: Any) -> Any:
    return absolute(number)


def _ceil(_call: _Call, budget: Budget, number: Any) -> int:
    return integral(number_of(number, budget), up=True)


def _floor(_call: _Call, budget: Budget, number: Any) -> int:
    return integral(number_of(number, budget), up=False)


def _numbers(call: _Call, budget: Budget, array: list[Any]) -> list[Any]:
    budget.spend(3 * len(array) + 1)
    for element in array:
        if type(element) is not int and type(element) is not Digits:
            raise call.refuse(f"it takes an array of numbers, and this one holds {kind_of(element)}")
    return [number_of(element, budget) for element in array]


def _total(call: _Call, numbers: list[Any]) -> Any:
    if all(type(number) is int for number in numbers):
        return sum(numbers)
    total = Decimal(0)
    try:
        for number in numbers:
            total = EXACT.add(total, number)
    except DecimalException:
        raise call.refuse("the sum is out of range") from None
    return total


def _sum(call: _Call, budget: Budget, array: list[Any]) -> Any:
    return exact(_total(call, _numbers(call, budget, array)))


def _avg(call: _Call, budget: Budget, array: list[Any]) -> Any:
    if not array:
        return None
    total = _total(call, _numbers(call, budget, array))
    try:
        return exact(EXACT.divide(total, len(array)))
    except DecimalException:
        raise call.refuse("the average is out of range") from None


def _contains(_call: _Call, budget: Budget, subject: Any, sought: Any) -> bool:
    if type(subject) is list:
        budget.spend(2 * len(subject))
        return any(are_equal(element, sought, budget) for element in subject)
    if type(sought) is not str:
        return False
    # CPython compares up to as many characters at each place while text and pattern are short, then it is linear.
    at_each = min(len(sought), 100 if len(subject) < 30_000 else 6)
    budget.spend(len(subject) * (at_each + 1) // 100)
    return sought in subject


def _ends_with(_call: _Call, budget: Budget, subject: str, suffix: str) -> bool:
    budget.spend(len(suffix) // 1000)
    return subject.endswith(suffix)


def _starts_with(_call: _Call, budget: Budget, subject: str, prefix: str) -> bool:
    budget.spend(len(prefix) // 1000)
    return subject.startswith(prefix)


def _join(call: _Call, budget: Budget, glue: str, array: list[Any]) -> str:
    budget.spend(2 * len(array) + 1)
    for element in array:
        if type(element) is not str:
            raise call.refuse(f"it takes an array of strings, and this one holds {kind_of(element)}; use to_string()")
    size = sum(map(len, array)) + len(glue) * len(array)
    if size > json_text.MAX_RESULT_BYTES:
        raise call.refuse(f"its result is longer than {json_text.MAX_RESULT_BYTES:,} characters")
    budget.spend(size // 50)
    return glue.join(array)


def _keys(_call: _Call, budget: Budget, members: dict[str, Any]) -> list[str]:
    budget.spend(len(members) // 4)
    return budget.make(list(members))


def _values(_call: _Call, budget: Budget, members: dict[str, Any]) -> list[Any]:
    budget.spend(len(members) // 4)
    return budget.make(list(members.values()))


def _length(_call: _Call, _budget: Budget, subject: Any) -> int:
    return len(subject)


def _map(_call: _Call, budget: Budget, each: Compiled, array: list[Any]) -> list[Any]:
    budget.spend(len(array) * (each.steps + 1))
    return budget.make([each.run(element, budget) for element in array])


def _merge(_call: _Call, budget: Budget, *objects: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for members in objects:
        budget.spend(len(members))
        merged.update(members)
    return budget.make(merged)


def _not_null(_call: _Call, _budget: Budget, *values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _reverse(_call: _Call, budget: Budget, subject: Any) -> Any:
    budget.spend(len(subject) // 4)
    return subject[::-1] if type(subject) is str else budget.make(subject[::-1])


def _order(call: _Call, budget: Budget, keys: list[Any]) -> list[Any]:
    """Return what to compare in place of these: numbers for numbers, strings for strings."""
    budget.spend(len(keys) + 1)
    kinds = set(map(type, keys))
    comparisons = len(keys).bit_length()
    if kinds <= {str}:
        budget.spend(len(keys) * comparisons // 2 + sum(map(len, keys)) * comparisons // 100)
        return keys
    if not kinds <= {int, Digits}:
        found = ", ".join(sorted({_NAMES.get(kind) or kind_of(kind()) for kind in kinds}))
        raise call.refuse(f"it compares numbers with numbers or strings with strings, and here are {found}")
    if kinds <= {int}:
        budget.spend(len(keys) * comparisons // 2)
        return keys
    budget.spend(len(keys) * comparisons)
    return [Decimal(number_of(key, budget)) for key in keys]


def _sort(call: _Call, budget: Budget, array: list[Any]) -> list[Any]:
    order = _order(call, budget, array)
    return budget.make([array[place] for place in sorted(range(len(array)), key=order.__getitem__)])


def _max(call: _Call, budget: Budget, array: list[Any]) -> Any:
    order = _order(call, budget, array)
    return array[max(range(len(array)), key=order.__getitem__)] if array else None


def _min(call: _Call, budget: Budget, array: list[Any]) -> Any:
    order = _order(call, budget, array)
    return array[min(range(len(array)), key=order.__getitem__)] if array else None


def _ordered_by(call: _Call, budget: Budget, array: list[Any], key: Compiled) -> list[Any]:
    return _order(call, budget, _map(call, budget, key, array))


def _sort_by(call: _Call, budget: Budget, array: list[Any], key: Compiled) -> list[Any]:
    order = _ordered_by(call, budget, array, key)
    return budget.make([array[place] for place in sorted(range(len(array)), key=order.__getitem__)])


def _max_by(call: _Call, budget: Budget, array: list[Any], key: Compiled) -> Any:
    order = _ordered_by(call, budget, array, key)
    return array[max(range(len(array)), key=order.__getitem__)] if array else None


def _min_by(call: _Call, budget: Budget, array: list[Any], key: Compiled) -> Any:
    order = _ordered_by(call, budget, array, key)
    return array[min(range(len(array)), key=order.__getitem__)] if array else None


def _to_array(_call: _Call, budget: Budget, value: Any) -> list[Any]:
    return value if type(value) is list else budget.make([value])


def _to_number(_call: _Call, budget: Budget, value: Any) -> Any:
    if type(value) is not str:
        return value if type(value) is int or type(value) is Digits else None
    budget.spend(3)
    return number_in(value)


def _to_string(_call: _Call, budget: Budget, value: Any) -> str:
    budget.spend(10)
    return value if type(value) is str else json_text.text_of(value, budget)


def _type(_call: _Call, _budget: Budget, value: Any) -> str:
    return kind_of(value).rpartition(" ")[2]


_DOING: dict[str, Callable[..., Any]] = {
    "abs": _abs, "avg": _avg, "ceil": _ceil, "contains": _contains, "ends_with": _ends_with, "floor": _floor,
    "join": _join, "keys": _keys, "length": _length, "map": _map, "max": _max, "max_by": _max_by, "merge": _merge,
    "min": _min, "min_by": _min_by, "not_null": _not_null, "reverse": _reverse, "sort": _sort, "sort_by": _sort_by,
    "starts_with": _starts_with, "sum": _sum, "to_array": _to_array, "to_number": _to_number,
    "to_string": _to_string, "type": _type, "values": _values,
}  # fmt: skip
FUNCTIONS = {name: _calls(function) for name, function in _DOING.items()}
"""By name, what makes a call from its node and its arguments; the names are those of the signatures."""
