"""The trace that an event belongs to: W3C Trace Context and Baggage, given or captured, as the database keeps it.

It is kept as up to three lines: traceparent, tracestate, baggage. Nothing here imports OpenTelemetry: where a trace is
active, its API was imported before.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from outbox._text import brief
from outbox.errors import RecordError
from outbox.ids import text_id

__all__ = ["captured_trace", "checked_trace"]

MAX_TRACESTATE = 512
MAX_BAGGAGE = 8192
_NAMES = ("traceparent", "tracestate", "baggage")

# https://www.w3.org/TR/trace-context/: version 00, and what it says of reading later ones.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_STATE_KEY = r"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_STATE_MEMBER = re.compile(rf"({_STATE_KEY})=[ !-+\--<>-~]{{0,255}}[!-+\--<>-~]")
_MAX_STATE_MEMBERS = 32
# https://www.w3.org/TR/baggage/
_TOKEN, _VALUE = r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+", r"[!#-+\--:<-\[\]-~]*"
_PROPERTY = rf"[ \t]*;[ \t]*{_TOKEN}([ \t]*=[ \t]*{_VALUE})?"
_BAGGAGE_MEMBER = re.compile(rf"{_TOKEN}[ \t]*=[ \t]*{_VALUE}({_PROPERTY})*")


def checked_trace(value: object) -> str | None:
    """Return a trace that was given as it is kept; None for an empty one. Raises RecordError, which names the field."""
    if not isinstance(value, Mapping):
        raise RecordError(
            f"trace: must be a mapping such as {{'traceparent': '00-…-…-01'}}, not {type(value).__qualname__}"
        )
    if unknown := [name for name in value if name not in _NAMES]:
        raise RecordError(f"trace: has no {brief(unknown[0])}; give traceparent, and tracestate and baggage if need be")
    given = {name: _checked_str(name, value[name]) for name in _NAMES if value.get(name) is not None}
    if not given:
        return None
    if "traceparent" not in given:
        raise RecordError("trace.traceparent: is missing; without it nothing can be told of the trace")
    return _kept(
        _traceparent(given["traceparent"]),
        _tracestate(given["tracestate"]) if "tracestate" in given else "",
        _baggage(given["baggage"]) if "baggage" in given else "",
    )


def captured_trace(*, baggage: bool, recorded: tuple[str, UUID] | None = None) -> str | None:
    """Return the trace that OpenTelemetry has active here, as it is kept; None where there is none.

    `recorded`: type and id of the event. A span of its own then stands for the recording, as the parent of what a relay
    does with the event.

    What does not keep to the grammar, or is too large, is left out: an event never fails for its trace.
    """
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None or not (context := api.get_current_span().get_span_context()).is_valid:
        return None
    if recorded is not None:
        context = _recorded_in(api, *recorded) or context
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return _kept(parent, _or_none(_tracestate, context.trace_state.to_header()), _active_baggage() if baggage else "")


def _recorded_in(api: Any, event_type: str, event_id: UUID) -> Any:
    """Make the span of a recording, which is over at once; return its context, None where there is none."""
    attributes = {
        "messaging.system": "outbox-relay",
        "messaging.operation.type": "create",
        "messaging.message.id": text_id("evt", event_id),
        "outbox.event.type": event_type,
    }
    span = api.get_tracer("outbox-relay").start_span(
        f"record {event_type}", kind=api.SpanKind.PRODUCER, attributes=attributes
    )
    span.end()
    context = span.get_span_context()
    return context if context.is_valid else None


def _active_baggage() -> str:
    from opentelemetry.baggage.propagation import W3CBaggagePropagator

    carrier: dict[str, str] = {}
    W3CBaggagePropagator().inject(carrier)
    return _or_none(_baggage, carrier.get("baggage", ""))


def _or_none(check: Any, value: str) -> str:
    try:
        return str(check(value))
    except RecordError:
        return ""


def _kept(*lines: str) -> str:
    return "\n".join(lines).rstrip("\n")


def _checked_str(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise RecordError(f"trace.{name}: must be a str, not {type(value).__qualname__}")
    return value.strip(" \t")


def _traceparent(value: str) -> str:
    """Return it in version 00; of a later version, the part that this one knows."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None or (match[1] == "00" and match[4]):
        raise RecordError(
            f"trace.traceparent: {brief(value)} is not like 00-<32 digits>-<16 digits>-01, in lower-case "
            "hexadecimal, and neither of them all zeros"
        )
    return f"00-{match[2]}-{match[3] if match[1] == '00' else f'{int(match[3], 16) & 1:02x}'}"


def _tracestate(value: str) -> str:
    members = _members(value)
    keys = [match[1] for member in members if (match := _STATE_MEMBER.fullmatch(member))]
    if len(keys) < len(members) or len(set(keys)) < len(keys) or len(keys) > _MAX_STATE_MEMBERS:
        raise RecordError(
            f"trace.tracestate: is not a list of up to {_MAX_STATE_MEMBERS} members such as vendor=value, each key once"
        )
    return _bounded("tracestate", members, MAX_TRACESTATE)


def _baggage(value: str) -> str:
    members = _members(value)
    if not all(map(_BAGGAGE_MEMBER.fullmatch, members)):
        raise RecordError("trace.baggage: is not a list such as name=value,other=value; percent-encode the rest")
    return _bounded("baggage", members, MAX_BAGGAGE)


def _members(value: str) -> list[str]:
    return [member for part in value.split(",") if (member := part.strip(" \t"))]


def _bounded(name: str, members: Iterable[str], most: int) -> str:
    text = ",".join(members).replace("\t", " ")
    if len(text) > most:
        raise RecordError(f"trace.{name}: is {len(text)} bytes, at most {most} are allowed")
    return text
