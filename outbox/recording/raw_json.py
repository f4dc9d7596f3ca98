"""Strict reading of JSON text that is kept as written."""

from __future__ import annotations

import json
import re
from typing import NoReturn

__all__ = ["depth", "parse"]

_BRACKET_OR_STRING = re.compile(r'[\[{]|[\]}]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def parse(text: str) -> object:
    """Return what the text says, numbers left out: their spelling is kept and their value needed by nobody.

    Raises:
        ValueError: not one JSON value by RFC 8259, or NaN or Infinity, or an object has the same key twice.
    """
    return json.loads(text, parse_constant=_no_constant, parse_float=_zero, parse_int=_zero, object_pairs_hook=_unique)


def depth(text: str) -> int:
    """The deepest nesting of brackets outside strings, of text that may not even be JSON."""
    level = deepest = 0
    for token in _BRACKET_OR_STRING.finditer(text):
        character = text[token.start()]
        if character in "[{":
            level += 1
            deepest = max(deepest, level)
        elif character in "]}":
            level -= 1
    return deepest


def _zero(_: str) -> int:
    return 0


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has the same key twice")
    return members
