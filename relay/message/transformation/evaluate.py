"""Turn the tree of an expression into one function of a value and a budget.

Each function here spends what a loop costs before the loop begins: the number of its turns times the size of its body.
What has no loop is paid for by whoever calls it, so that counting costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.message.transformation.budget import Compiled
from relay.message.transformation.functions import FUNCTIONS
from relay.message.transformation.values import NUMBERS, are_equal, is_true, number_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from outbox.transformation import Node
    from relay.message.transformation.budget import Budget

__all__ = ["compiled"]


def compiled(node: Node) -> Compiled:
    """Return the function that a tree describes. Its depth is bounded by the parser."""
    parts = [compiled(part) for part in node.parts]
    return _MAKERS[node.kind](node, parts)


def _current(_node: Node, _parts: list[Compiled]) -> Compiled:
    return Compiled(lambda value, _: value, 1)


def _literal(node: Node, _parts: list[Compiled]) -> Compiled:
    literal = node.value
    return Compiled(lambda _value, _: literal, 1)


def _field(node: Node, _parts: list[Compiled]) -> Compiled:
    name = node.value
    return Compiled(lambda value, _: value.get(name) if type(value) is dict else None, 1)


def _index(node: Node, _parts: list[Compiled]) -> Compiled:
    index = node.value

    def run(value: Any, _: Budget) -> Any:
        return value[index] if type(value) is list and -len(value) <= index < len(value) else None

    return Compiled(run, 1)


def _slice(node: Node, _parts: list[Compiled]) -> Compiled:
    bounds = slice(*node.value)

    def run(value: Any, budget: Budget) -> Any:
        if type(value) is not list:
            return None
        budget.spend(len(range(*bounds.indices(len(value)))) // 4)
        return budget.make(value[bounds])

    return Compiled(run, 2)


def _then(_node: Node, parts: list[Compiled]) -> Compiled:
    steps = sum(part.steps for part in parts) + 1
    if len(parts) == 2:
        first, second = parts[0].run, parts[1].run
        return Compiled(lambda value, budget: second(first(value, budget), budget), steps)
    runs = [part.run for part in parts]

    def run(value: Any, budget: Budget) -> Any:
        for one in runs:
            value = one(value, budget)
        return value

    return Compiled(run, steps)


def _project(_node: Node, parts: list[Compiled]) -> Compiled:
    base, each = parts

    def run(value: Any, budget: Budget) -> Any:
        elements = base.run(value, budget)
        return _of_each(elements, each, budget) if type(elements) is list else None

    return Compiled(run, base.steps + 2)


def _project_values(_node: Node, parts: list[Compiled]) -> Compiled:
    base, each = parts

    def run(value: Any, budget: Budget) -> Any:
        members = base.run(value, budget)
        if type(members) is not dict:
            return None
        budget.spend(len(members) // 4)
        return _of_each(list(members.values()), each, budget)

    return Compiled(run, base.steps + 2)


def _of_each(elements: list[Any], each: Compiled, budget: Budget) -> list[Any]:
    """Return the results for all elements, without those that are null."""
    budget.spend(len(elements) * (each.steps + 1))
    run = each.run
    return budget.make([result for element in elements if (result := run(element, budget)) is not None])


def _filter(_node: Node, parts: list[Compiled]) -> Compiled:
    base, each, condition = parts

    def run(value: Any, budget: Budget) -> Any:
        elements = base.run(value, budget)
        if type(elements) is not list:
            return None
        budget.spend(len(elements) * (condition.steps + 2))
        matches = condition.run
        return _of_each([element for element in elements if is_true(matches(element, budget))], each, budget)

    return Compiled(run, base.steps + 2)


def _flatten(_node: Node, parts: list[Compiled]) -> Compiled:
    (base,) = parts

    def run(value: Any, budget: Budget) -> Any:
        elements = base.run(value, budget)
        if type(elements) is not list:
            return None
        budget.spend(2 * len(elements))
        budget.spend(sum(len(element) for element in elements if type(element) is list) // 4)
        flat: list[Any] = []
        for element in elements:
            if type(element) is list:
                flat += element
            else:
                flat.append(element)
        return budget.make(flat)

    return Compiled(run, base.steps + 2)


def _or(_node: Node, parts: list[Compiled]) -> Compiled:
    left, right = parts[0].run, parts[1].run

    def run(value: Any, budget: Budget) -> Any:
        found = left(value, budget)
        return found if is_true(found) else right(value, budget)

    return Compiled(run, parts[0].steps + parts[1].steps + 2)


def _and(_node: Node, parts: list[Compiled]) -> Compiled:
    left, right = parts[0].run, parts[1].run

    def run(value: Any, budget: Budget) -> Any:
        found = left(value, budget)
        return right(value, budget) if is_true(found) else found

    return Compiled(run, parts[0].steps + parts[1].steps + 2)


def _not(_node: Node, parts: list[Compiled]) -> Compiled:
    (one,) = parts
    run = one.run
    return Compiled(lambda value, budget: not is_true(run(value, budget)), one.steps + 2)


def _compare(node: Node, parts: list[Compiled]) -> Compiled:
    left, right = parts[0].run, parts[1].run
    steps = parts[0].steps + parts[1].steps + 4
    if node.value in ("==", "!="):
        equal = node.value == "=="
        return Compiled(
            lambda value, budget: are_equal(left(value, budget), right(value, budget), budget) is equal, steps
        )
    passes = _ORDERS[node.value]

    def run(value: Any, budget: Budget) -> Any:
        one, other = left(value, budget), right(value, budget)
        if type(one) is str and type(other) is str:
            budget.spend(min(len(one), len(other)) // 100)
            return passes(one, other)
        if type(one) in NUMBERS and type(other) in NUMBERS:
            return passes(number_of(one, budget), number_of(other, budget))
        return None

    return Compiled(run, steps + 4)


_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def _list(_node: Node, parts: list[Compiled]) -> Compiled:
    runs = [part.run for part in parts]

    def run(value: Any, budget: Budget) -> Any:
        return None if value is None else budget.make([one(value, budget) for one in runs])

    return Compiled(run, sum(part.steps for part in parts) + len(parts) + 3)


def _object(node: Node, parts: list[Compiled]) -> Compiled:
    members = [(name, part.run) for name, part in zip(node.value, parts, strict=True)]

    def run(value: Any, budget: Budget) -> Any:
        return None if value is None else budget.make({name: one(value, budget) for name, one in members})

    return Compiled(run, sum(part.steps for part in parts) + len(parts) + 3)


def _call(node: Node, parts: list[Compiled]) -> Compiled:
    return FUNCTIONS[node.value](node, parts)


def _expression(_node: Node, parts: list[Compiled]) -> Compiled:
    return parts[0]  # the function that takes it runs it


_MAKERS: dict[str, Callable[[Node, list[Compiled]], Compiled]] = {
    "current": _current, "literal": _literal, "field": _field, "index": _index, "slice": _slice, "then": _then,
    "project": _project, "project_values": _project_values, "filter": _filter, "flatten": _flatten, "or": _or,
    "and": _and, "not": _not, "compare": _compare, "list": _list, "object": _object, "call": _call,
    "expression": _expression,
}  # fmt: skip
