"""JSON that keeps the text of its numbers, and its leaves by name, for formats that do not pass the data on."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from relay.message.formats.maker import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_DEPTH", "Number", "compact", "leaves", "parse", "shown"]

MAX_DEPTH = 10
"""What is nested deeper is one leaf."""

_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_quoted = json.JSONEncoder(ensure_ascii=False).encode


class Number(str):
    """A number as the text says it: 10.50 stays 10.50."""

    __slots__ = ()


def parse(payload: bytes) -> Any:
    """Parse stored JSON. Raises FormatError for what is nested deeper than Python's stack allows."""
    try:
        return json.loads(payload, parse_int=Number, parse_float=Number)
    except RecursionError:
        raise FormatError(
            "data: is nested too deep for this format; record it flatter, or use the format raw"
        ) from None
    except ValueError:
        raise FormatError("data: is no JSON that can be read") from None


def compact(value: Any) -> str:
    """Return a parsed value as compact JSON."""
    if isinstance(value, Number):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(name)}:{compact(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, value)) + "]"
    return _quoted(value)


def leaves(value: Any, name: str, separator: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield what is in nested objects, each under the names that lead to it; a list is a leaf."""
    if not isinstance(value, dict) or not value or depth == MAX_DEPTH:
        yield name, value
        return
    for key, item in value.items():
        yield from leaves(item, f"{name}{separator}{key}" if name else key, separator, depth + 1)


def shown(value: Any) -> str:
    """Return a parsed value for people: text as it is, without control characters."""
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return ", ".join(map(shown, value))
    return _UNSHOWN.sub("\ufffd", value if isinstance(value, str) else compact(value))
