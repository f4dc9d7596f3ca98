"""How times and lengths of time are written in text: in findings, in the audit, and in what is printed."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["duration", "rfc3339", "utc", "who_held"]

_LONGEST_RETRY_AFTER_SECONDS = 86_400  # relay.model.decide keeps what a receiver asks for within a day


def rfc3339(moment: datetime) -> str:
    """Return the time in UTC to the microsecond, with Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def utc(moment: datetime) -> str:
    """Return the time in UTC to the second, as people read it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


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
    return "by the receiver's Retry-After" if seconds_left <= _LONGEST_RETRY_AFTER_SECONDS else "by hand (relay audit)"
