"""An event as it travels through the data plane: in parts. relay.message makes the body of a request from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Body", "EventParts"]

_AROUND_THE_PAYLOAD = len('{"type":"","timestamp":"2000-01-01T00:00:00.000000Z","data":}')


class Body(NamedTuple):
    """A body in one format, and the header lines that the format adds besides the content type."""

    content: bytes
    lines: bytes = b""

    def __repr__(self) -> str:
        return f"Body({len(self.content)} bytes)"


@dataclass(slots=True)
class EventParts:
    """One recorded fact. All deliveries of it in a batch share one of these, and with it the bodies made so far.

    An event whose row somebody removed is None wherever a delivery carries one.

    id: `evt_…`, as it goes on the wire. recorded_at: microseconds since 2000-01-01 UTC, as PostgreSQL counts.
    payload: the exact JSON text, in UTF-8. standard, bodies: what relay.message made of it so far, in the standard
    format, and in others by format and settings.
    trace: W3C's traceparent, tracestate and baggage, a line each; mostly None.
    metadata: text by name as JSON, which filters and transformations see and receivers do not; mostly None.
    transformed: this event with other data, by expression; None until the first is made.
    """

    id: bytes
    type: bytes
    tenant: str
    key: str | None = field(repr=False)
    recorded_at: int
    payload: bytes = field(repr=False)
    trace: bytes | None = field(default=None, repr=False)
    metadata: bytes | None = field(default=None, repr=False)
    size: int = field(init=False)
    """How many bytes its body has, or will have, in the standard format."""
    standard: bytes | None = field(init=False, repr=False, default=None)
    bodies: dict[str, Body] = field(init=False, repr=False)
    transformed: dict[str, EventParts] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self.size = _AROUND_THE_PAYLOAD + len(self.type) + len(self.payload)
        self.bodies = {}
