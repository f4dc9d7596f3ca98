"""Read a stored payload as Python values, for whoever shows it."""

from __future__ import annotations

import json
import math
from typing import Any

from outbox.recording.plain_data import MAX_DEPTH
from outbox.recording.raw_json import depth

__all__ = ["payload_value"]


def payload_value(payload: str) -> Any:
    """Return what a JSON text says; the text itself where Python cannot read it and write it again.

    An event that SQL inserted may have any JSON: integers of more than 4,300 digits, which Python does not read; 1e999,
    which it reads as infinity, and half of a surrogate pair: it writes neither; and lists nested deeper than its stack.
    """
    if payload.count("[") + payload.count("{") > MAX_DEPTH and depth(payload) > MAX_DEPTH:
        return payload
    try:
        value = json.loads(payload, parse_float=_finite)
        if "\\u" in payload:
            json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError, a ValueError, of half a pair
    except ValueError:
        return payload
    return value


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError("no float has this number")
    return value
