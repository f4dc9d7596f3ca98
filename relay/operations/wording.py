"""How times, lengths of time and text from outside are written, in whatever is printed."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["duration", "escaped", "rfc3339", "utc"]


def escaped(text: str) -> str:
    """Return the text with every control and format character written out (\\x1b, \\u202e, \\n)."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


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
