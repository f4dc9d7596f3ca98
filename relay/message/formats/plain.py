"""Bodies that put the stored data, unparsed, between constant text: the same bytes whatever is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.message.body import time_of
from relay.message.formats.maker import FormatError
from relay.model.event import Body

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from relay.message.formats.maker import Family, Make
    from relay.model.event import EventParts

__all__ = ["FORMATS"]

_N8N_MAX_BYTES = 16 * 1024 * 1024  # N8N_PAYLOAD_SIZE_MAX, its default


def _raw(event: EventParts) -> Body:
    return Body(event.payload)


def _thin(event: EventParts) -> Body:
    return Body(b'{"id":"%b","type":"%b"}' % (event.id, event.type))


def _notely(event: EventParts) -> Body:
    return Body(b'{"event_type":"%b","data":%b}' % (event.type, event.payload))


def _fulfil(event: EventParts) -> Body:
    return Body(_timed(b"event", event), b"X-Webhook-Event: %b\r\n" % event.type)


def _soundhash(event: EventParts) -> Body:
    return Body(_timed(b"type", event))


def _leads(event: EventParts) -> Body:
    return Body(_timed(b"event", event))


def _n8n(event: EventParts) -> Body:
    """Put the id into the body, since a workflow has to know a repetition by it."""
    body = b'{"id":"%b",%b' % (event.id, _timed(b"type", event)[1:])
    if len(body) > _N8N_MAX_BYTES:
        raise FormatError(f"data: the body has {len(body)} bytes, n8n takes {_N8N_MAX_BYTES}; record less")
    return Body(body)


def _timed(name: bytes, event: EventParts) -> bytes:
    """Return type (under this name), time and data. The time is the event's: the same bytes at every attempt."""
    return b'{"%b":"%b","timestamp":"%b","data":%b}' % (
        name, event.type, time_of(event, fraction=False), event.payload,
    )  # fmt: skip


def _without_settings(make: Make) -> Family:
    def family(_settings: Mapping[str, Any], _secret: str) -> Make:
        return make

    return family


FORMATS: Mapping[str, Family] = {
    "raw": _without_settings(_raw),
    "thin": _without_settings(_thin),
    "notely": _without_settings(_notely),
    "fulfil": _without_settings(_fulfil),
    "soundhash": _without_settings(_soundhash),
    "leads": _without_settings(_leads),
    "n8n": _without_settings(_n8n),
}
