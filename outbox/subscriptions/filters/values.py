"""JSON values as filters see them: numbers exact, types apart, and a field that is missing.

A number is an int or a Decimal, never a float: 0.1 is one tenth, 2^53+1 is not 2^53, and 1e400 is a number. Python
takes True for 1, so no comparison here relies on `==` alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from enum import Enum
from json.encoder import encode_basestring
from math import isfinite
from typing import Any, Final, NoReturn

__all__ = [
    "MISSING", "Scalars", "Unheld", "as_read", "brief_json", "canonical", "in_json", "is_number", "path_of",
    "read_filter", "read_payload", "same",
]  # fmt: skip

# int() refuses more than 4,300 digits unless its limit is raised; Decimal reads any number of them in linear time.
_INTEGER_DIGITS = 4000
_WORD = re.compile(r"\$?[A-Za-z_][A-Za-z0-9_]*")


class _Missing(Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing.MISSING
"""What a field is that is not there; null is there."""


class Unheld:
    """A number whose exponent has more than 18 digits: it is equal to nothing, and has no order."""

    __slots__ = ()


class Scalars:
    """A set of scalars in which 1, "1" and true are three different ones."""

    __slots__ = ("_numbers", "_others", "_texts")

    def __init__(self, values: Iterable[Any]) -> None:
        given = list(values)
        self._texts = frozenset(value for value in given if type(value) is str)
        self._numbers = frozenset(value for value in given if is_number(value))
        self._others = frozenset(value for value in given if value is None or type(value) is bool)

    def has(self, value: Any, _work: object = None) -> bool:
        """Tell whether the value is one of these; no object, list or missing field ever is."""
        kind = type(value)
        if kind is str:
            return value in self._texts
        if kind is int or kind is Decimal:
            return value in self._numbers
        return (kind is bool or value is None) and value in self._others


def is_number(value: object) -> bool:
    """Tell whether it is a number; True is none."""
    return type(value) is int or type(value) is Decimal


def same(wanted: Any, value: Any) -> bool:
    """Tell whether two JSON values are equal in depth. The order of keys is of no account, that of elements is.

    The work is bounded by the size of `wanted`.
    """
    kind = type(wanted)
    if kind is dict:
        there = type(value) is dict and len(value) == len(wanted)
        return there and all(name in value and same(item, value[name]) for name, item in wanted.items())
    if kind is list:
        there = type(value) is list and len(value) == len(wanted)
        return there and all(map(same, wanted, value))
    if is_number(wanted):
        return is_number(value) and bool(wanted == value)
    return type(value) is kind and bool(wanted == value)


def read_payload(text: str) -> Any:
    """Parse a payload, its numbers exactly; of duplicate keys the last one counts.

    Raises:
        ValueError: it is no JSON, or nested more deeply than can be read here.
    """
    try:
        return _QUICK.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (ValueError, ArithmeticError):
        return _CAREFUL.decode(text)


def read_filter(text: str) -> Any:
    """Parse a filter's text, its numbers exactly.

    Raises:
        ValueError: it is no JSON, too deep, or an object has a key twice: one of two conditions would be lost.
    """
    try:
        return _FILTER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _integer(text: str) -> Any:
    return int(text) if len(text) <= _INTEGER_DIGITS else _number(text)


def _number(text: str) -> Any:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Unheld() if text.lower().partition("e")[0].strip("-0.") else 0


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has the same key twice")
    return members


# The scanner in C calls int and Decimal itself; what they refuse is rare, and then all is read once more.
_QUICK = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant)
_CAREFUL = json.JSONDecoder(parse_float=_number, parse_int=_integer, parse_constant=_no_constant)
_FILTER = json.JSONDecoder(
    parse_float=_number, parse_int=_integer, parse_constant=_no_constant, object_pairs_hook=_unique
)


def canonical(value: Any) -> str:
    """Return the one text of a value of int, Decimal, str, bool, None, list and dict: keys sorted, no spaces."""
    if type(value) is dict:
        return "{" + ",".join(f"{encode_basestring(name)}:{canonical(value[name])}" for name in sorted(value)) + "}"
    if type(value) is list:
        return "[" + ",".join(map(canonical, value)) + "]"
    if type(value) is str:
        return encode_basestring(value)
    if value is None or type(value) is bool:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def brief_json(value: Any) -> str:
    """Return a value as JSON for people, at most 80 characters; of a large one only what kind it is."""
    if value is MISSING:
        return "missing"
    if type(value) in (dict, list) and len(value) > 20:
        return f"an object of {len(value)} fields" if type(value) is dict else f"a list of {len(value)}"
    if type(value) is str:
        text = encode_basestring(value[:80])
    elif isinstance(value, Unheld):
        text = "a number of too large an exponent"
    else:
        text = _briefly(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _briefly(value: Any) -> str:
    try:
        return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return f"a deep {'object' if type(value) is dict else 'list'}"


def as_read(value: Any) -> Any:
    """Return a parsed filter as people give it: a float for a Decimal that is exactly what the float's text says."""
    if type(value) is dict:
        return {name: as_read(item) for name, item in value.items()}
    if type(value) is list:
        return [as_read(item) for item in value]
    if type(value) is Decimal:
        nearest = float(value) if value.adjusted() <= 308 else 0.0  # a float holds no more
        return nearest if Decimal(repr(nearest)) == value else value
    return value


def in_json(value: Any) -> Any:
    """Return what `as_read` gave as the json module can write it: a number of too many digits is rounded."""
    if isinstance(value, dict):
        return {name: in_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [in_json(item) for item in value]
    if isinstance(value, Decimal):
        return float(value) if isfinite(float(value)) else str(value)
    return value


def path_of(steps: Iterable[str], root: str = "") -> str:
    """Return a path for people: words with dots between them, any other key in brackets."""
    parts = [f".{step}" if _WORD.fullmatch(step) else f"[{step[:40]!a}]" for step in steps]
    path = root + "".join(parts)
    return path.removeprefix(".") if len(path) <= 200 else f"{path[:120]}…{path[-60:]}"
