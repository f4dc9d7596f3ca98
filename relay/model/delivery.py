"""A delivery and its states.

            fan_out (born leased)
    ────────────────────────────┐          settle: delivered
                                ▼        ┌────────────────────▶ gone; its attempt row is the record
    fan_out ──▶ due/waiting ──claim──▶ leased ──settle: retry──▶ waiting (due_at = now + backoff)
                 ▲    ▲                  │ └────settle: dead────▶ dead letter
                 │    └─────release──────┘
                 │   (attempt given back)     lease ends without a result ──▶ suspect ──claim_suspect──▶ leased
                 │                                       (or, after too many crashes, ──▶ dead letter)
               look (the first of its lane, when that has no head)
                 │
    fan_out ──▶ parked (due_at = infinity)     order switched on: due, waiting, suspect ──sort_batch──▶ parked
                                               order switched off: parked ──release_parked──▶ due
    dead letter ──late success──▶ gone     dead letter ──purge──▶ gone
    dead letter, gone ──replay──▶ due, or parked in its lane: a new one
    of a removed subscription: whatever is outstanding ──clearing──▶ gone
    by hand: waiting ──retry now──▶ due     whatever is outstanding ──cancel──▶ gone; an attempt row `cancelled` is the
    record. A request that was on its way may still arrive: its success is logged, its failure changes nothing

A delivery is *due* when it has no lease and due_at has passed, *waiting* when due_at is in the future, *leased* while
it has a lease and due_at (then the end of the lease) is in the future. It is a *suspect* when its lease ended without a
result: it may have ended the process that held it. It is *parked* while another of its lane (its key, in an ordered
subscription) is the head, which has any of the other states.

Where a subscription has batches, its deliveries are born leased only where they fill a batch; else a claim takes
several together. Either writes their batch into each row. They stay together until all are delivered, or settle halves
the batch: leased → due, in two new ones, the attempt given back. A suspect is claimed with its whole batch.

A retry after a refusal (429, 503) by an endpoint that takes other requests gives the attempt back, as release does.
What a limit lets wait is due, never leased.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from outbox.ids import text_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.event import EventParts

__all__ = ["HUGE_BYTES", "SMALL_BYTES", "Delivery", "batch_of"]

SMALL_BYTES = 8 * 1024
"""Up to so many bytes of body, a delivery takes nothing but its lease's place."""
HUGE_BYTES = 1024 * 1024
"""Beyond so many bytes of body, a delivery goes alone of its kind."""


@dataclass(slots=True)
class Delivery:
    """One leased delivery: the right to make attempt number `attempts` until the lease ends.

    event: None when the event's row is gone or cannot be read; nothing can be sent then. unreadable: the server's
    error, where it cannot be read. probe: it is the one that is sent to an endpoint whose breaker is open.
    timeout_seconds: how long its attempt may take at most; its lease was made for so long, whatever is set meanwhile.
    members: those of a batch, in the order of its body. The batch itself is a delivery too, whose id is the batch's.
    """

    id: bytes
    event_seq: int
    subscription_id: bytes
    attempts: int
    lease: int
    event: EventParts | None
    start_by: float  # this process's monotonic time after which no attempt may begin
    suspect: bool = False
    unreadable: str | None = None
    lane: int | None = None  # of an ordered subscription's delivery whose event has a key
    probe: bool = False
    batch: bytes | None = None  # the id of the batch that it goes in
    timeout_seconds: float = math.inf
    members: tuple[Delivery, ...] = ()

    @property
    def size(self) -> int:
        """How many bytes of memory its event is counted as."""
        if self.members:
            return sum(member.size for member in self.members)
        return self.event.size if self.event else 0

    def __str__(self) -> str:
        return text_id("bat" if self.members else "dlv", UUID(bytes=self.id))


def batch_of(members: Sequence[Delivery]) -> Delivery:
    """Return these deliveries, leased together and in the order of their body, as the one that their batch is."""
    first, attempts = members[0], max(member.attempts for member in members)
    assert first.batch is not None
    return Delivery(
        first.batch, first.event_seq, first.subscription_id, attempts, first.lease, None, first.start_by, first.suspect,
        probe=first.probe, batch=first.batch, timeout_seconds=first.timeout_seconds, members=tuple(members),
    )  # fmt: skip
