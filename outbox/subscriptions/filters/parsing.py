"""Check a filter whole, when a subscription is made or changed, and build its conditions.

The errors name the path, the value and the mend. Two passes: `_Copy` takes JSON values only and counts them, `_Parser`
gives them their meaning.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NoReturn

from outbox._text import brief, nearest
from outbox.errors import SubscriptionError
from outbox.subscriptions.filters import conditions, operators
from outbox.subscriptions.filters.conditions import Condition, scalar_of
from outbox.subscriptions.filters.event import EVENT_FIELDS
from outbox.subscriptions.filters.filters import Filter, RefusedFilter
from outbox.subscriptions.filters.values import canonical, is_number, path_of, read_filter

__all__ = ["MAX_DEPTH", "MAX_ENTRIES", "MAX_NODES", "MAX_TEXT_BYTES", "parse", "stored_filter"]

MAX_DEPTH = 16
MAX_NODES = 200
MAX_ENTRIES = 100
MAX_TEXT_BYTES = 16_384
_MAX_INTEGER_BITS = 13_000  # what Python writes out as text; more digits than a filter's text may have bytes anyway

_Path = tuple[str, ...]


def parse(filter: object, *, name: str = "filter", over: Literal["event", "payload"] = "event") -> Filter:  # noqa: A002
    """Return the filter, compiled.

    Args:
        filter: a JSON object of dicts, lists, str, int, float, Decimal, bool and None.
        name: what errors call it.
        over: what its top level names: fields of the event, or those of the payload.

    Raises:
        SubscriptionError: it is no filter; the message names the path and the mend.
    """
    copied = _Copy(name).take(filter)
    text = canonical(copied)
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        raise SubscriptionError(f"{name}: is {size} bytes as JSON, at most {MAX_TEXT_BYTES} are allowed")
    parser = _Parser(name)
    if not copied:
        return Filter(conditions.And({}, ()), text)
    if over == "event":
        return Filter(parser.event(copied, ()), text)
    return Filter(conditions.EventField("payload", parser.condition(copied, ())), text)


def stored_filter(text: str) -> Filter:
    """Return the filter that a column holds; one that cannot be understood says so of every event. Never raises."""
    try:
        return parse(read_filter(text))
    except (ValueError, SubscriptionError) as error:
        return RefusedFilter(text, str(error))


class _Copy:
    """Copies a filter in exact JSON values, and counts what it has."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes = 0

    def take(self, given: object) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            self._refuse((), f"{brief(given)} is not an object; give {{'payload': {{'total': {{'$gte': 100}}}}}}, say")
        copied: dict[str, Any] = self._value(given, (), 1)
        return copied

    def _value(self, value: object, path: _Path, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse((), f"has more than {MAX_NODES} objects, lists and values; use $in for many values of a field")
        if isinstance(value, Mapping | list | tuple):
            if depth > MAX_DEPTH:
                self._refuse(path, f"more than {MAX_DEPTH} objects and lists within each other")
            if isinstance(value, Mapping):
                return {self._key(key, path): self._value(each, (*path, key), depth + 1) for key, each in value.items()}
            return [self._value(each, (*path, f"[{place}]"), depth + 1) for place, each in enumerate(value)]
        return self._scalar(value, path)

    def _key(self, key: object, path: _Path) -> str:
        if not isinstance(key, str):
            self._refuse(path, f"a key is {brief(key)}; JSON has only text as keys")
        if not key:
            self._refuse(path, "a key is empty; name the field")
        return self._text(key, path)

    def _scalar(self, value: object, path: _Path) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, int):
            if value.bit_length() > _MAX_INTEGER_BITS:
                self._refuse(path, f"{brief(value)} has too many digits")
            return int(value)
        if isinstance(value, float):
            return self._decimal(Decimal(repr(float(value))), path)
        if isinstance(value, Decimal):
            return self._decimal(value, path)
        return self._refuse(
            path, f"{brief(value)} has no JSON form; give text, a number, a list, an object, true or null"
        )

    def _text(self, text: str, path: _Path) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            self._refuse(path, "has half of a surrogate pair, which is not Unicode text; remove it")
        return str.__str__(text)

    def _decimal(self, value: Decimal, path: _Path) -> Decimal:
        if not value.is_finite():
            self._refuse(path, f"{value} is not a number in JSON")
        return value

    def _refuse(self, path: _Path, reason: str) -> NoReturn:
        raise SubscriptionError(f"{_at(self._name, path)}: {reason}")


def _at(name: str, path: _Path) -> str:
    """Return the path of an error: places in lists are written as they are, keys as `path_of` does."""
    parts = [step if step.startswith("[") and step.endswith("]") else path_of([step], "…")[1:] for step in path]
    whole = name + "".join(parts)
    return whole if len(whole) <= 200 else f"{whole[:120]}…{whole[-60:]}"


_ORDER = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
_AFFIXES: dict[str, Callable[[str, tuple[str, ...]], bool]] = {"$startsWith": str.startswith, "$endsWith": str.endswith}
_SPELLINGS = {"$neq": "$ne", "$exist": "$exists"}
_LOGIC = ("$and", "$or", "$not")


class _Parser:
    """Gives a copied filter its meaning, or refuses it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._operators: dict[str, Callable[[Any, Any, _Path], Condition]] = {
            "$eq": lambda source, operand, _: operators.Equal(source, operand),
            "$ne": lambda source, operand, _: operators.Differs(source, operand),
            **dict.fromkeys(_ORDER, self._order),
            "$in": lambda source, operand, path: operators.In(source, self._scalars("$in", operand, path)),
            "$nin": lambda source, operand, path: operators.NotIn(source, self._scalars("$nin", operand, path)),
            "$exists": self._exists,
            **dict.fromkeys(_AFFIXES, self._affix),
            "$contains": self._contains,
            "$and": self._and,
            "$or": self._or,
            "$not": lambda source, operand, path: conditions.Not(source, self.condition(operand, path)),
        }

    def event(self, given: Any, path: _Path) -> Condition:
        """Return the condition of a level that names the event's own fields."""
        if not isinstance(given, dict) or not given:
            self._refuse(
                path, f"{_shown(given)} says nothing of the event; give an object of {', '.join(EVENT_FIELDS)}"
            )
        return conditions.And(given, [self._event_member(key, given[key], path) for key in given])

    def _event_member(self, key: str, given: Any, path: _Path) -> Condition:
        here, source = (*path, key), {key: given}
        if key in EVENT_FIELDS:
            return conditions.EventField(key, self.condition(given, here))
        if key == "$not":
            return conditions.Not(source, self.event(given, here))
        if key in ("$and", "$or"):
            parts = [self.event(each, (*here, f"[{at}]")) for at, each in enumerate(self._list(key, given, here))]
            return conditions.And(source, parts) if key == "$and" else conditions.Or(source, parts)
        return self._refuse(here, f"is no field of an event; {_nearest(key, (*EVENT_FIELDS, *_LOGIC), 'those are')}")

    def condition(self, given: Any, path: _Path) -> Condition:
        """Return the condition of a value below the event's fields."""
        if isinstance(given, dict):
            if not given:
                self._refuse(path, "{} says nothing; give {'$exists': true}, or {'$eq': {}} for an empty object")
            return conditions.Object(given, [self._member(key, given[key], path) for key in given])
        if isinstance(given, list):
            if not given:
                self._refuse(path, "[] says nothing; give {'$eq': []} for an empty list")
            entries = [self.condition(each, (*path, f"[{place}]")) for place, each in enumerate(given)]
            return conditions.Every(given, entries)
        return conditions.Plain(given, [given])

    def _member(self, key: str, given: Any, path: _Path) -> Condition:
        here = (*path, key)
        if not key.startswith("$"):
            return conditions.Field(key, self.condition(given, here))
        make = self._operators.get(_SPELLINGS.get(key, key))
        if make is None:
            self._refuse(here, f"is no operator; {_nearest(key, self._operators, 'operators are')}")
        return make({key: given}, given, here)

    def _order(self, source: Any, operand: Any, path: _Path) -> Condition:
        if not (is_number(operand) or isinstance(operand, str)):
            self._refuse(path, f"{_shown(operand)} has no order; give a number or a text")
        return operators.Order(source, _ORDER[path[-1]], operand)

    def _exists(self, source: Any, operand: Any, path: _Path) -> Condition:
        if not isinstance(operand, bool):
            self._refuse(path, f"{_shown(operand)} is not true or false")
        return operators.Exists(source, operand)

    def _affix(self, source: Any, operand: Any, path: _Path) -> Condition:
        texts = [operand] if isinstance(operand, str) else self._entries(path[-1], operand, path)
        if wrong := [each for each in texts if not isinstance(each, str)]:
            self._refuse(path, f"{_shown(wrong[0])} is not a text; give one, or a list of them")
        return operators.Affix(source, _AFFIXES[path[-1]], texts)

    def _contains(self, source: Any, operand: Any, path: _Path) -> Condition:
        if isinstance(operand, dict | list):
            self._refuse(path, f"{_shown(operand)} is not a single value; for objects in a list give a plain object")
        return operators.Contains(source, operand)

    def _and(self, source: Any, operand: Any, path: _Path) -> Condition:
        return conditions.And(source, self._parts("$and", operand, path))

    def _or(self, source: Any, operand: Any, path: _Path) -> Condition:
        """Put plain scalars together: ninety alternatives then look through a long list once."""
        parts = self._parts("$or", operand, path)
        plain = [scalar for part in parts for scalar in scalar_of(part)]
        others = [part for part in parts if not scalar_of(part)]
        return conditions.Or(source, [conditions.Plain(plain, plain), *others] if plain else others)

    def _parts(self, key: str, operand: Any, path: _Path) -> list[Condition]:
        given = self._list(key, operand, path)
        return [self.condition(each, (*path, f"[{place}]")) for place, each in enumerate(given)]

    def _list(self, key: str, operand: Any, path: _Path) -> list[Any]:
        if not isinstance(operand, list) or not operand:
            self._refuse(path, f"{_shown(operand)} is not a list of conditions; give {key} one or more of them")
        return operand

    def _entries(self, key: str, operand: Any, path: _Path) -> list[Any]:
        if not isinstance(operand, list):
            mend = "; for a part of a text use $contains" if isinstance(operand, str) else ""
            self._refuse(path, f"{_shown(operand)} is not a list; give {key} a list of 1 to {MAX_ENTRIES}{mend}")
        if not 1 <= len(operand) <= MAX_ENTRIES:
            self._refuse(path, f"has {len(operand)} entries; give 1 to {MAX_ENTRIES}")
        return operand

    def _scalars(self, key: str, operand: Any, path: _Path) -> Sequence[Any]:
        for place, each in enumerate(self._entries(key, operand, path)):
            if isinstance(each, dict | list):
                self._refuse((*path, f"[{place}]"), f"{_shown(each)} is not a single value, as {key} takes them")
        return list(operand)

    def _refuse(self, path: _Path, reason: str) -> NoReturn:
        raise SubscriptionError(f"{_at(self._name, path)}: {reason}")


def _nearest(key: str, known: Iterable[str], words: str) -> str:
    """Name the known one that the key is nearly, or all of them."""
    if key == "$regex":
        return "there are no regular expressions; use $startsWith, $endsWith or $contains"
    lower = {name.lower(): name for name in known}
    near = nearest(key.lower(), lower, cutoff=0.7)
    return f"did you mean {lower[near]}?" if near else f"{words} {', '.join(lower.values())}"


def _shown(value: Any) -> str:
    """Return a value for an error text; never what a container holds."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return brief(value)
