"""Check the arguments of `record()` other than its target and data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from outbox._text import MAX_TYPE_BYTES, brief, complaint
from outbox.errors import ArgumentError, RecordError

__all__ = ["check_on_error", "checked_metadata", "checked_priority", "checked_text", "checked_time", "checked_type"]

_TYPE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_RESERVED = "relay."
_MAX_METADATA_BYTES = 8192
_MAX_DELAY = timedelta(days=36_525)
_MICROSECOND = timedelta(microseconds=1)


def checked_type(value: object, argument: str = "type") -> str:
    """Return an event's type as text.

    Raises RecordError, which names the argument, when it is not dotted words, too long, or the relay's own.
    """
    if not isinstance(value, str) or len(value) > MAX_TYPE_BYTES or not _is_dotted(str.__str__(value)):
        given = ascii(value[:60]) if isinstance(value, str) else type(value).__qualname__
        raise RecordError(
            f"{argument}: {given} is not dotted words of letters, digits and _, like 'order.created', "
            f"of at most {MAX_TYPE_BYTES} bytes"
        )
    if value.startswith(_RESERVED):
        raise RecordError(
            f"{argument}: {brief(value)} begins with {_RESERVED}, which is for events about the relay itself; "
            "begin it with another word"
        )
    return str.__str__(value)


@lru_cache(maxsize=1024)  # an application has few types, and records each again and again
def _is_dotted(value: str) -> bool:
    return _TYPE.fullmatch(value) is not None


def checked_text(name: str, value: object, max_bytes: int) -> str:
    """Return a text field as it is stored. Raises RecordError."""
    if refused := complaint(name, value, max_bytes):
        raise RecordError(refused)
    return str.__str__(value)


def checked_priority(value: object) -> int:
    """Return a priority, 0 to 3. Raises RecordError."""
    if type(value) is not int or not 0 <= value <= 3:
        raise RecordError(f"priority: must be 0, 1, 2 or 3 (the most urgent), not {brief(value)}")
    return value


def checked_metadata(value: object) -> str | None:
    """Return metadata as JSON text; None for an empty mapping. Raises RecordError, which names the entry."""
    if not isinstance(value, Mapping):
        raise RecordError(f"metadata: must be a mapping of text to text, not {type(value).__qualname__}")
    for name, item in value.items():
        checked_text("metadata: a name", name, _MAX_METADATA_BYTES)
        checked_text(f"metadata[{brief(name)}]", item, _MAX_METADATA_BYTES)
    kept = json.dumps(dict(value), ensure_ascii=False)
    if (size := len(kept.encode())) > _MAX_METADATA_BYTES:
        raise RecordError(f"metadata: is {size} bytes as JSON, at most {_MAX_METADATA_BYTES} are allowed")
    return kept if value else None


def checked_time(value: object) -> tuple[datetime | None, int | None]:
    """Return an instant in UTC, or a delay in microseconds."""
    if isinstance(value, timedelta):
        if not timedelta(0) <= value <= _MAX_DELAY:
            raise RecordError(f"available_at: a timedelta must be between 0 and {_MAX_DELAY.days} days")
        return None, value // _MICROSECOND
    if not isinstance(value, datetime):
        raise RecordError(f"available_at: must be an aware datetime or a timedelta, not {type(value).__qualname__}")
    if value.utcoffset() is None:
        raise RecordError("available_at: a datetime without time zone is ambiguous; give it a tzinfo")
    try:
        return value.astimezone(UTC), None
    except OverflowError:
        raise RecordError("available_at: is outside the years 1 to 9999 in UTC") from None


def check_on_error(value: object) -> None:
    """Raise ArgumentError unless it is what `on_error` can be besides 'raise'."""
    if value != "log":
        raise ArgumentError(f"on_error: must be 'raise' or 'log', not {brief(value)}")
