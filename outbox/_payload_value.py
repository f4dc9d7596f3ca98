"""Read a stored payload as Python values, for whoever shows it."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["payload_value"]


def payload_value(payload: str) -> Any:
    """Return what a JSON text says; the text itself where Python cannot read it and write it again.

    JSON has numbers of any size and lists of any depth. Python reads no integer of more than 4,300 digits, 1e999 as
    infinity, which is no JSON, and nothing deeper than its own stack.
    """
    try:
        return json.loads(payload, parse_float=_finite)
    except (ValueError, RecursionError):
        return payload


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError("no float has this number")
    return value
