"""Rates: so many requests in a second, a minute or an hour, in the one spelling `100/s`, `30/min`, `500/h`."""

from __future__ import annotations

import re

from outbox._text import brief
from outbox.errors import SubscriptionError

__all__ = ["check_rate", "per_second"]

_RATE = re.compile(r"([1-9][0-9]{0,4})/(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def check_rate(name: str, value: object) -> str:
    """Return the rate as it is stored: `N/s`, `N/min` or `N/h`, N a whole number from 1 to 99999."""
    if not isinstance(value, str) or not _RATE.fullmatch(value):
        raise SubscriptionError(
            f"{name}: {brief(value)} is not a rate; give N/s, N/min or N/h with N from 1 to 99999, such as '30/min'"
        )
    return value


def per_second(rate: str) -> float:
    """Return how many requests a second a stored rate allows."""
    count, _, unit = rate.partition("/")
    return int(count) / _SECONDS[unit]
