"""CloudEvents 1.0 over HTTP: structured, binary and batched (spec.md, json-format.md, http-protocol-binding.md).

The id is the event's, the source the subscription's setting: together they are the identity, the same at every attempt.
The stored data stand in the body as they are. Data of a type that is not JSON are recorded as text.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any

from outbox.formats.cloudevents import is_json, string_refusal
from relay.message.body import time_of
from relay.message.formats.maker import FormatError
from relay.model.event import Body

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from relay.message.formats.maker import Family, Make
    from relay.model.event import EventParts

__all__ = ["FORMATS", "batched"]

_SOURCE = "/outbox"
_KEY_AS = "partitionkey"
_DECLARED = ("subject", "datacontenttype", "dataschema")
_TRACE = re.compile(rb"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(?:\n([ -~]*))?(?:\n[ -~]*)?")
_ENCODED = re.compile(r"[^!#$&-~]")  # of a header's value: blank, double quote, percent, and all outside U+0021-U+007E


def structured(settings: Mapping[str, Any], _secret: str = "") -> Make:
    """Return what makes one JSON object of attributes and data."""
    source, members = _json(settings.get("source", _SOURCE)), b"".join(map(_member, _fixed_attributes(settings)))

    def make(event: EventParts) -> Body:
        own = b"".join(map(_member, _event_attributes(settings, event)))
        return Body(
            b'{"specversion":"1.0","id":"%b","source":%b,"type":"%b","time":"%b"%b%b%b}'
            % (event.id, source, event.type, time_of(event), members, own, _data_member(settings, event.payload))
        )

    return make


def binary(settings: Mapping[str, Any], _secret: str = "") -> Make:
    """Return what makes the data the body, and the attributes header lines."""
    fixed = [(name, value) for name, value in _fixed_attributes(settings) if name != "datacontenttype"]
    constant = b"ce-specversion: 1.0\r\n" + b"".join(map(_line, [("source", settings.get("source", _SOURCE)), *fixed]))

    def make(event: EventParts) -> Body:
        own = b"".join(map(_line, _event_attributes(settings, event)))
        lines = b"ce-id: %b\r\nce-type: %b\r\nce-time: %b\r\n" % (event.id, event.type, time_of(event))
        return Body(_data(settings, event.payload), constant + lines + own)

    return make


def batched(bodies: Sequence[bytes]) -> bytes:
    """Return the batch of structured bodies: a JSON array, of one too, and [] of none."""
    return b"[%b]" % b",".join(bodies)


def _fixed_attributes(settings: Mapping[str, Any]) -> Iterator[tuple[str, str | int]]:
    yield from ((name, settings[name]) for name in _DECLARED if name in settings)
    yield from settings.get("extensions", {}).items()


def _event_attributes(settings: Mapping[str, Any], event: EventParts) -> Iterator[tuple[str, str]]:
    """Yield key and tenant under their names; an empty one is left out, since no String may be empty here."""
    named = (
        (settings.get("key_as", _KEY_AS), event.key, "key"),
        (settings.get("tenant_as", ""), event.tenant, "tenant"),
    )
    for attribute, value, what in named:
        if attribute and value:
            if refused := string_refusal(value):
                raise FormatError(f"{what}: {refused}; set {what}_as to '', and replay")
            yield attribute, value
    if event.trace is not None:
        yield from _trace_attributes(settings, event.trace)


def _trace_attributes(settings: Mapping[str, Any], trace: bytes) -> Iterator[tuple[str, str]]:
    """Yield the trace in which the event was recorded (the tracing extension), where no setting has the name.

    The HTTP header of the same name is that of the request. A malformed trace is left out, as trace.py does.
    """
    stored = _TRACE.fullmatch(trace)
    taken = {*settings.get("extensions", {}), settings.get("key_as"), settings.get("tenant_as")}
    for name, value in zip(("traceparent", "tracestate"), stored.groups(b"") if stored else (), strict=False):
        if value and name not in taken:
            yield name, value.decode("ascii")


def _data_member(settings: Mapping[str, Any], payload: bytes) -> bytes:
    """Return the member data or data_base64; nothing where there are no data."""
    if not payload:
        return b""
    if not _is_text(settings):
        return b',"data":%b' % payload
    if "data_encoding" in settings:
        _decoded(payload, settings)
        return b',"data_base64":%b' % payload
    _text_of(payload, settings)
    return b',"data":%b' % payload


def _data(settings: Mapping[str, Any], payload: bytes) -> bytes:
    if not payload or not _is_text(settings):
        return payload
    return _decoded(payload, settings) if "data_encoding" in settings else _text_of(payload, settings).encode()


def _is_text(settings: Mapping[str, Any]) -> bool:
    return not is_json(settings.get("datacontenttype", "application/json"))


def _text_of(payload: bytes, settings: Mapping[str, Any]) -> str:
    try:
        text = json.loads(payload)
        if isinstance(text, str):
            text.encode()
            return text
    except (ValueError, RecursionError):  # a lone surrogate is a ValueError too
        pass
    raise FormatError(
        f"data: is no text, as {settings['datacontenttype']} needs it; record text, or set datacontenttype"
    )


def _decoded(payload: bytes, settings: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(_text_of(payload, settings), validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("data: is no base64, as data_encoding says; record the bytes in standard base64") from None


def _json(value: str | int) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _member(attribute: tuple[str, str | int]) -> bytes:
    return b',"%b":%b' % (attribute[0].encode(), _json(attribute[1]))


def _line(attribute: tuple[str, str | int]) -> bytes:
    name, value = attribute
    text = value if isinstance(value, str) else json.dumps(value)  # true, not True
    return f"ce-{name}: {_ENCODED.sub(_percent, text)}\r\n".encode("ascii")


def _percent(character: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in character[0].encode())


FORMATS: Mapping[str, Family] = {"cloudevents": structured, "cloudevents-binary": binary}
