"""Check JSON text strictly that is stored as written."""

from __future__ import annotations

import json
import re
from typing import NoReturn

__all__ = ["depth", "parse", "parse_once"]

_BRACKET_OR_STRING = re.compile(r'[\[{]|[\]}]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def parse(text: str) -> object:
    """Return the parsed text, with 0 for every number: the text keeps their spelling, and nobody needs their value.

    Raises:
        ValueError: not one JSON value by RFC 8259, or NaN or Infinity, or an object has the same key twice.
    """
    return json.loads(text, parse_constant=_no_constant, parse_float=_zero, parse_int=_zero, object_pairs_hook=_unique)


def parse_once(text: str) -> object:
    """Return the parsed text with its numbers. Raises ValueError as `parse` does, and RecursionError for deep text."""
    return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)


def depth(text: str) -> int:
    """Return the deepest nesting of brackets outside strings. The text need not be JSON."""
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
