"""A delivery, its states, and the event that it carries.

            fan_out (born leased)
    ────────────────────────────┐          settle: delivered
                                ▼        ┌────────────────────▶ gone; its attempt row is the record
    fan_out ──▶ due/waiting ──claim──▶ leased ──settle: retry──▶ waiting (due_at = now + backoff)
                   ▲                     │ └────settle: dead────▶ dead letter
                   └──────release────────┘
                     (attempt given back)      lease expires unreported ──▶ suspect ──claim_suspect──▶ leased

A delivery is *due* when it has no lease and due_at has come, *waiting* when due_at lies ahead, *leased* while lease is
set and due_at (now the end of the lease) lies ahead, and a *suspect* when a lease ended without a word: whoever held
it may have died of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from outbox.ids import text_id

__all__ = ["Delivery", "Event"]


@dataclass(slots=True)
class Event:
    """What a delivery carries, as it goes on the wire: `evt_…` (empty when the event's row is gone), type and body."""

    id: bytes
    type: bytes
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Delivery:
    """One leased delivery: the right to make attempt number `attempts` until the lease ends."""

    id: bytes
    event_seq: int
    subscription_id: bytes
    attempts: int
    lease: int
    event: Event
    start_by: float  # this process's monotonic time after which no attempt may begin
    suspect: bool = False

    def __str__(self) -> str:
        return text_id("dlv", UUID(bytes=self.id))
