"""The values that travel through the data plane, and the states of a delivery.

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
from enum import IntEnum
from typing import TYPE_CHECKING
from uuid import UUID

from outbox.ids import text_id

if TYPE_CHECKING:
    from outbox.secret import Secret
    from relay.model.outcome import Outcome

__all__ = ["Delivery", "Event", "Settlement", "Subscription", "Verdict", "VerdictKind"]

MILLISECONDS_MAX = 2**31 - 1  # of an integer column


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


@dataclass(frozen=True, slots=True)
class Subscription:
    """What sending needs of a subscription, as of one version of its row."""

    id: bytes
    version: int
    url: str
    timeout_seconds: int
    schedule_seconds: tuple[int, ...]
    scheme: str
    final_statuses: tuple[int, ...]
    secrets: tuple[tuple[str, Secret], ...]  # kind and text, sealed or clear; newest first
    closed_seconds: float = 0.0  # nothing may be sent for so long; inf: paused, disabled or removed

    def __repr__(self) -> str:
        return f"Subscription(id={self.id.hex()}, version={self.version})"


class VerdictKind(IntEnum):
    """What we conclude from an outcome. The numbers are the settle statement's."""

    DELIVERED = 0
    RETRY = 1
    DEAD = 2
    RELEASE = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conclusion, the seconds until the next attempt, and what it means for the whole endpoint.

    hold_seconds: for so long nothing more may be sent to it; inf: not before a person resumes it. Of a release it binds
    this process only.
    """

    kind: VerdictKind
    wait_seconds: float = 0.0
    hold_seconds: float = 0.0


@dataclass(slots=True)
class Settlement:
    """One attempt's result on its way to the database: what happened and what it means."""

    delivery: Delivery
    verdict: Verdict
    outcome: str
    status: int | None
    milliseconds: int
    error: str | None = None
    url: str | None = None
    address: str | None = None
    headers: str | None = None
    excerpt: bytes | None = None

    @classmethod
    def of(cls, delivery: Delivery, verdict: Verdict, outcome: Outcome, url: str | None) -> Settlement:
        """Join the three as the database takes them; without `url` the details of the answer are left out."""
        milliseconds = min(outcome.milliseconds, MILLISECONDS_MAX)
        if url is None:
            return cls(delivery, verdict, outcome.kind, outcome.status, milliseconds)
        return cls(
            delivery,
            verdict,
            outcome.kind,
            outcome.status if outcome.status is None or outcome.status < 1000 else None,
            milliseconds,
            outcome.error,
            url,
            outcome.address,
            outcome.headers,
            outcome.excerpt,
        )
