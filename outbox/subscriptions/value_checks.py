"""Check one value whatever field it is of: text, a whole number, a word of several. Each raises SubscriptionError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from outbox._text import brief, complaint
from outbox.errors import SubscriptionError

__all__ = ["Check", "check_bool", "check_seconds", "check_text", "one_of", "text", "whole_number"]

Check = Callable[[str, Any], Any]
"""A function from a field's name and the value given to what is stored; it raises SubscriptionError."""


def text(max_bytes: int) -> Check:
    """Return the check for text of so many bytes in UTF-8, stored as given: whoever shows it escapes it."""
    return lambda name, value: check_text(name, value, max_bytes)


def whole_number(low: int, high: int, of: str = "") -> Check:
    """Return the check for a whole number (of seconds, say) from `low` to `high`."""
    return lambda name, value: _check_whole(name, value, low, high, f" of {of}" if of else "")


def one_of(*words: str) -> Check:
    """Return the check for one of these words."""

    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise SubscriptionError(f"{name}: {brief(value)} is not one of {', '.join(words)}")
        return str.__str__(value)

    return check


def check_seconds(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number of seconds from `low` to `high`."""
    return _check_whole(name, value, low, high, " of seconds")


def _check_whole(name: str, value: object, low: int, high: int, of: str) -> int:
    """Return the number; True is not 1, and '10' is not 10."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SubscriptionError(f"{name}: {brief(value)} is not a whole number{of} from {low} to {high}")
    return value


def check_text(name: str, value: object, max_bytes: int) -> str:
    """Return text of at most so many bytes in UTF-8, stored as given."""
    if refused := complaint(name, value, max_bytes):
        raise SubscriptionError(refused)
    return str.__str__(value)


def check_bool(name: str, value: object) -> bool:
    """Return True or False; 1 and 'true' are neither."""
    if not isinstance(value, bool):
        raise SubscriptionError(f"{name}: {brief(value)} is not True or False")
    return value
