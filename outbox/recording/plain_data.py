"""Write ordinary data as JSON by the C encoder of the standard library, where it writes exactly what is wanted."""

from __future__ import annotations

import json
from types import NoneType
from typing import Any

__all__ = ["MAX_DEPTH", "encode_plain"]

MAX_DEPTH = 100
"""How deep dicts and lists may be nested in an event's data."""

_SCALARS = frozenset({str, int, float, bool, NoneType})
_CONTAINERS = frozenset({dict, list, tuple})
_PLAIN = _SCALARS | _CONTAINERS
_c_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def encode_plain(data: object, max_payload_bytes: int) -> str | None:
    """Return the C encoder's text, or None for data that only `payload` writes or refuses correctly."""
    if not _is_plain(data, max_payload_bytes):
        return None
    try:
        text = _c_encode(data)
        if not text.isascii():
            text.encode()
    except (ValueError, RecursionError):  # NaN, a lone surrogate, a number of 5,000 digits, a caller deep in its stack
        return None
    return None if "\\u0000" in text else text


def _is_plain(data: object, max_payload_bytes: int) -> bool:
    """Tell whether data consists of exact JSON types with str keys, is not too deep and not far too large.

    Keys are checked because json.dumps silently writes the keys None, True and 1 as strings.
    """
    if type(data) is dict and _SCALARS.issuperset(map(type, data.values())) and {str}.issuperset(map(type, data)):
        return True  # what most data is, in a third of the time
    level: list[Any] = [[data]]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for container in level:
            values = container
            if type(container) is dict:
                if not {str}.issuperset(map(type, container)):
                    return False
                values = container.values()
            kinds = set(map(type, values))
            if not kinds <= _SCALARS:
                if not kinds <= _PLAIN:
                    return False
                below += [value for value in values if type(value) in _CONTAINERS]
        if not below or 2 * len(below) > max_payload_bytes:
            return not below
        level = below
    return False
