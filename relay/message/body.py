"""The body of a request, made from an event's parts once for each format, however many subscriptions get it.

The same bytes at every attempt: nothing here depends on the clock, the subscription or the process.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.model.event import EventParts

__all__ = ["FORMATS", "body_of"]

_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - UTC throughout; isoformat() must not add an offset


def body_of(event: EventParts, form: str = "standard") -> bytes:
    """Return the body in this format; the event keeps it, so that its other deliveries share the bytes."""
    made = event.bodies.get(form)
    if made is None:
        made = event.bodies[form] = FORMATS[form](event)
    return made


def _standard(event: EventParts) -> bytes:
    """Put the payload, unparsed, between type and time: the same bytes as outbox.body() shows to users of SQL."""
    seconds, microseconds = divmod(event.recorded_at, 1_000_000)
    return b'{"type":"%b","timestamp":"%b.%06dZ","data":%b}' % (
        event.type, _second(seconds), microseconds, event.payload,
    )  # fmt: skip


@lru_cache(maxsize=64)  # events come in the order of their time, so most share their second with the one before
def _second(seconds: int) -> bytes:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat().encode()


FORMATS: Mapping[str, Callable[[EventParts], bytes]] = {"standard": _standard}
