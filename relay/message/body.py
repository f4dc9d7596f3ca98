"""The body of a request in the standard format, made from an event's parts once, however many subscriptions get it.

The same bytes at every attempt: nothing here depends on the clock, the subscription or the process. The other formats
are in relay.message.formats.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.model.event import EventParts

__all__ = ["body_of", "time_of"]

_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - UTC throughout; isoformat() must not add an offset


def body_of(event: EventParts) -> bytes:
    """Return the body in the standard format; the event keeps it, so that its other deliveries share the bytes."""
    made = event.standard
    if made is None:
        made = event.standard = _standard(event)
    return made


def time_of(event: EventParts, *, fraction: bool = True) -> bytes:
    """Return when the event was recorded, RFC 3339 in UTC; without `fraction` only where there is one."""
    seconds, microseconds = divmod(event.recorded_at, 1_000_000)
    if not microseconds and not fraction:
        return b"%bZ" % _second(seconds)
    return b"%b.%06dZ" % (_second(seconds), microseconds)


def _standard(event: EventParts) -> bytes:
    """Put the payload, unparsed, between type and time: the same bytes as outbox.body() shows to users of SQL."""
    seconds, microseconds = divmod(event.recorded_at, 1_000_000)
    return b'{"type":"%b","timestamp":"%b.%06dZ","data":%b}' % (
        event.type, _second(seconds), microseconds, event.payload,
    )  # fmt: skip


@lru_cache(maxsize=64)  # events come in the order of their time, so most share their second with the one before
def _second(seconds: int) -> bytes:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat().encode()
