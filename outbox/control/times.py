"""How times and lengths of time are written in text: in findings, in the audit, and in what is printed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = ["ago_text", "duration", "is_by_hand", "moment_of", "rfc3339", "rough", "utc", "who_held"]

_AGO = re.compile(r"([0-9]{1,6})(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = timedelta(days=36_500)

_LONGEST_RETRY_AFTER_SECONDS = 86_400  # relay.model.decide keeps what a receiver asks for within a day


def rfc3339(moment: datetime) -> str:
    """Return the time in UTC to the microsecond, with Z."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def utc(moment: datetime) -> str:
    """Return the time in UTC to the second, as people read it."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "seconds") + "Z"


def moment_of(text: str) -> datetime | timedelta:
    """Read a point in time: RFC 3339 with its offset, a day (UTC), or how long ago: 90s, 15m, 2h, 3d, 1w.

    Returns an aware datetime, or the timedelta before the database's now. Raises ValueError.
    """
    ago = _AGO.fullmatch(text)
    if ago:
        length = timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        if length > _LONGEST:
            raise ValueError(f"{text!r} is a time more than 100 years ago; name a nearer one")
        return length
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; give 2026-01-31T12:00:00Z, 2026-01-31 or 15m, 2h, 3d ago") from None
    if moment.tzinfo is None and len(text) == len("2026-01-31"):
        return moment.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone; add Z for UTC")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is no time of the years 1 to 9999 in UTC; name a nearer one") from None
    return moment


def ago_text(length: timedelta) -> str:
    """Return a length of time as `moment_of` reads it, of whole seconds: 90s, 15m, 2h, 3d."""
    seconds = int(length.total_seconds())
    unit = next(unit for unit in "dhms" if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def rough(number: float) -> str:
    """Return a measured number with two significant digits: 22, 0.13, 1,200."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 else f"{rounded:g}"


def duration(seconds: float) -> str:
    """Return a length of time in two units at most: 41s, 5m 20s, 3h 12m, 4d 1h."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def who_held(seconds_left: float) -> str:
    """Return whose a hold is that lasts so much longer: what no receiver can ask for, a person wrote."""
    return "by hand (relay audit)" if is_by_hand(seconds_left) else "by the receiver's Retry-After"


def is_by_hand(seconds_left: float) -> bool:
    """Tell whether a person made a hold that lasts so much longer, since no receiver can ask for that."""
    return seconds_left > _LONGEST_RETRY_AFTER_SECONDS
