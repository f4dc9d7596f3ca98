"""JSON that keeps the text of its numbers, and its leaves by name, for formats that do not pass the data on."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from relay.message.formats.maker import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MAX_DEPTH", "MAX_SHOWN", "Number", "compact", "leaves", "parse", "quoted", "shown"]

MAX_DEPTH = 10
"""What is nested deeper is one leaf."""

MAX_SHOWN = 20_000  # characters, as many as any text for people may have

_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
quoted = json.JSONEncoder(ensure_ascii=False).encode


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
        return "{" + ",".join(f"{quoted(name)}:{compact(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, value)) + "]"
    return quoted(value)


def leaves(value: Any, name: str, separator: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield what is in nested objects, each under the names that lead to it; a list is a leaf."""
    if not isinstance(value, dict) or not value or depth == MAX_DEPTH:
        yield name, value
        return
    for key, item in value.items():
        yield from leaves(item, f"{name}{separator}{key}" if name else key, separator, depth + 1)


def shown(value: Any) -> str:
    """Return a parsed value for people: text as it is, without control characters; of lists and objects the beginning.

    That has more than MAX_SHOWN characters where there are more.
    """
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return ", ".join(_first(map(shown, value)))
    return _UNSHOWN.sub("\ufffd", value if isinstance(value, str) else "".join(_first(_pieces(value))))


def _first(pieces: Iterable[str]) -> Iterator[str]:
    """Yield pieces until they have more than MAX_SHOWN characters."""
    size = 0
    for piece in pieces:
        yield piece
        size += len(piece)
        if size > MAX_SHOWN:
            return


def _pieces(value: Any) -> Iterator[str]:
    """Yield the compact JSON of a parsed value piece by piece, so that who needs its beginning does not make all."""
    if not value or not isinstance(value, dict | list):
        yield compact(value)
        return
    is_object = isinstance(value, dict)
    before = "{" if is_object else "["
    for item in value:
        yield f"{before}{quoted(item)}:" if is_object else before
        yield from _pieces(value[item] if is_object else item)
        before = ","
    yield "}" if is_object else "]"
