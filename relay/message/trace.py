"""Send the trace on that an event was recorded in, with a span around the request where OpenTelemetry is installed.

Only an event that carries a trace comes here, and only then OpenTelemetry is looked for, once. Without it, or without
an SDK behind its API, receivers get the trace as it was recorded. The lines are checked again, since a row can be
written by hand: a line end inside one would begin a header of its own.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from outbox.ids import text_id
from relay.model.outcome import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.http.sender import Endpoint, Sender
    from relay.model.event import EventParts

__all__ = ["Traced", "note_fan_out", "opentelemetry"]

_NAMES = (b"traceparent", b"tracestate", b"baggage")
_STORED = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:\n([ -~]*))?(?:\n([ -~]*))?")
_MAX_BYTES = 8761


class Traced:
    """A sender for one attempt: it adds the trace's header lines to requests to this endpoint, and to no others.

    A header that the subscription has of its own is left as it is. A token is fetched through this sender too, and whom
    it is fetched from learns nothing of the trace.
    """

    __slots__ = ("_attempt", "_endpoint", "_event", "_sender")

    def __init__(self, sender: Sender, event: EventParts, endpoint: Endpoint, attempt: int) -> None:
        self._sender = sender
        self._event = event
        self._endpoint = endpoint
        self._attempt = attempt

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        """POST as the sender inside does, within a span. A trace that is malformed is not sent."""
        stored = _STORED.fullmatch(self._event.trace or b"") if len(self._event.trace or b"") <= _MAX_BYTES else None
        if stored is None or endpoint is not self._endpoint:
            return await self._sender.send(endpoint, headers, body, timeout_seconds)
        trace_id, span_id, flags, state, baggage = stored.groups(b"")
        values = (b"00-%b-%b-%b" % (trace_id, span_id, flags), state, baggage)
        if (api := opentelemetry()) is None:
            return await self._sender.send(endpoint, headers + _lines(values, headers), body, timeout_seconds)
        with self._span(api, values) as span:
            lines = _lines((*_sent_on(span, values), baggage), headers)
            outcome = await self._sender.send(endpoint, headers + lines, body, timeout_seconds)
            _note(api, span, outcome)
            return outcome

    async def close(self) -> None:
        """Leave the sender inside open: it is not of this attempt alone."""

    def _span(self, api: Any, values: tuple[bytes, ...]) -> Any:
        """Return a span, to be entered, below the one that recorded the event.

        The URL's path and query stay out of it: some receivers keep a credential there.
        """
        url, event = self._endpoint.url, self._event
        carrier = {name.decode(): value.decode() for name, value in zip(_NAMES, values, strict=True) if value}
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "server.address": url.host,
            "server.port": url.port,
            "url.scheme": url.scheme,
            "messaging.system": "outbox-relay",
            "messaging.operation.type": "send",
            "messaging.message.id": event.id.decode(),
            "outbox.event.type": event.type.decode(),
        }
        if owner := self._endpoint.key.owner:
            attributes["outbox.subscription.id"] = text_id("sub", UUID(bytes=owner))
        if self._attempt > 1:
            attributes["http.request.resend_count"] = self._attempt - 1
        return api.tracer.start_as_current_span(
            f"deliver {event.type.decode()}",
            context=api.propagator.extract(carrier),
            kind=api.SpanKind.CLIENT,
            attributes=attributes,
        )


def note_fan_out(events: Iterable[EventParts], began_ns: int) -> None:
    """Make a span for each of these events that carries a trace: it was fanned out from `began_ns` (Unix) until now.

    It stands beside the spans of its attempts, which other processes may make long after.
    """
    traced = [event for event in events if event.trace]
    if not traced or (api := opentelemetry()) is None:
        return
    for event in traced:
        if len(event.trace or b"") > _MAX_BYTES or (stored := _STORED.fullmatch(event.trace or b"")) is None:
            continue
        trace_id, span_id, flags, state, _ = stored.groups(b"")
        carrier = {"traceparent": (b"00-%b-%b-%b" % (trace_id, span_id, flags)).decode(), "tracestate": state.decode()}
        attributes = {
            "messaging.system": "outbox-relay",
            "messaging.message.id": event.id.decode(),
            "outbox.event.type": event.type.decode(),
        }
        span = api.tracer.start_span(
            f"fan_out {event.type.decode()}",
            context=api.propagator.extract(carrier),
            kind=api.SpanKind.INTERNAL,
            attributes=attributes,
            start_time=began_ns,
        )
        span.end()


class _OpenTelemetry:
    """What is used of its API."""

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.tracer = trace.get_tracer("outbox-relay")
        self.propagator = TraceContextTextMapPropagator()
        self.SpanKind, self.Status, self.StatusCode = trace.SpanKind, trace.Status, trace.StatusCode


@cache
def opentelemetry() -> _OpenTelemetry | None:
    """Return what is used of its API; None where it is not installed."""
    try:
        return _OpenTelemetry()
    except ImportError:
        return None


def _sent_on(span: Any, values: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """Return traceparent and tracestate with this span as the parent; as they were, where no SDK made one."""
    context = span.get_span_context()
    if not context.is_valid:
        return values[0], values[1]
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header().encode()
    return parent.encode(), state if re.fullmatch(rb"[ -~]*", state) else b""


def _lines(values: tuple[bytes, ...], headers: bytes) -> bytes:
    """Return the header lines of what there is, without those that the request has already."""
    there = b"\r\n" + headers.lower()
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, value in zip(_NAMES, values, strict=True)
        if value and b"\r\n%b:" % name not in there
    )


def _note(api: Any, span: Any, outcome: Outcome) -> None:
    if outcome.status is not None:
        span.set_attribute("http.response.status_code", outcome.status)
    if outcome.kind != OutcomeKind.DELIVERED:
        span.set_attribute("error.type", str(outcome.kind))
        span.set_status(api.Status(api.StatusCode.ERROR, str(outcome.kind)))
