"""What the data plane's statements take and return, a row each. Ids are 16 raw bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from outbox.ids import event_id_of
from relay.model.event import EventParts

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EVENT_COLUMNS", "Birth", "Leased", "Match", "Poll", "Settled", "Swept", "Taken", "event_of"]


EVENT_COLUMNS = (
    "id, tenant, type, key, recorded_at, convert_to(payload, 'UTF8'), convert_to(trace, 'UTF8'),"
    " convert_to(metadata::text, 'UTF8')"
)
"""What `event_of` takes, of outbox.events."""


class Poll(NamedTuple):
    """What a poll saw: the first pending event, the last number drawn, subscriptions that became due, the clock.

    paused: whether a person stopped all sending. homes: where this schema is at home, as outbox.here() names places.
    groups: whether some pending event was seen to have a tenant or a priority, where that was asked.
    """

    first: int | None
    drawn: int
    due: list[bytes]
    unix_seconds: float
    paused: bool
    homes: list[str]
    groups: bool


class Swept(NamedTuple):
    """A subscription that may be sent to, and whether it has due rows and suspects."""

    id: bytes
    due: bool
    suspects: bool
    version: int


class Taken(NamedTuple):
    """One event taken from pending, without its payload.

    size: bytes of its payload; None where the event's row is gone, and then nothing matches. fits: whether it is within
    the byte budget; if not, its deliveries are not to be born leased. priority: 0 to 3. lane: the hash of its key,
    None without one. about: of an event about the relay itself, the subscription (`sub_…`) that it is about.
    """

    seq: int
    tenant: str
    type: str
    available_at: bytes | None
    available: bool
    size: int | None
    fits: bool
    priority: int = 0
    lane: int | None = None
    about: str | None = None

    def __repr__(self) -> str:
        return f"Taken(seq={self.seq}, type={self.type!r})"


class Match(NamedTuple):
    """A subscription that matches, at the version the take saw, and whether it was SENDABLE then.

    ordered: whether events of one key go to it in order. filter_hash: of its filter, which has still to let the event
    through; None without one.
    """

    subscription_id: bytes
    version: int
    sendable: bool
    ordered: bool = False
    filter_hash: bytes | None = None


class Birth(NamedTuple):
    """One delivery to insert; with a lease it is born leased for `lease_seconds`, else due at `due` (None: now).

    size: bytes of the event's payload, by which later claims are bounded; None where it is not known.
    boost_seconds: how much earlier than now it is due, by its priority; None: not at all. lane: None where nothing is
    in order. parked: behind another of its lane, until that is gone; then due at `due` at the earliest. batch: the id
    of the batch that it is born into, leased, and batch_size how many it has.
    """

    id: bytes
    event_seq: int
    subscription_id: bytes
    due: bytes | None
    lease: int | None
    lease_seconds: float | None
    size: int | None = None
    boost_seconds: int | None = None
    lane: int | None = None
    parked: bool = False
    batch: bytes | None = None
    batch_size: int | None = None


class Settled(NamedTuple):
    """What settling a batch changed, each a set of ids.

    won: deliveries that left as delivered; not those that another relay had settled or buried before. buried:
    deliveries that became dead letters. risen: dead letters that a late success took back. held, disabled:
    subscriptions whose endpoint asked for it. held_alike: subscriptions that are held back with another. ailing: those
    that failed and of which nothing was noted before. worn: those disabled because they had only failed. halved:
    deliveries that are in another batch now.
    """

    won: frozenset[bytes] = frozenset()
    buried: frozenset[bytes] = frozenset()
    risen: frozenset[bytes] = frozenset()
    held: frozenset[bytes] = frozenset()
    held_alike: frozenset[bytes] = frozenset()
    disabled: frozenset[bytes] = frozenset()
    ailing: frozenset[bytes] = frozenset()
    worn: frozenset[bytes] = frozenset()
    halved: frozenset[bytes] = frozenset()


class Leased(NamedTuple):
    """One row that claim leased. Rows of one event share it; it is None when its row is gone or cannot be read.

    event_bytes: what its payload counted when the claim was bounded by bytes.
    unreadable: the server's error where the row is there and cannot be read.
    due: its due_at before the claim, as the server sends it, where that is told.
    """

    id: bytes
    event_seq: int
    subscription_id: bytes
    attempts: int
    version: int
    timeout_seconds: int
    event_bytes: int
    event: EventParts | None
    unreadable: str | None = None
    lane: int | None = None
    due: bytes | None = None

    def __repr__(self) -> str:
        return f"Leased(id={self.id.hex()}, event_seq={self.event_seq}, attempts={self.attempts})"


def event_of(parts: Sequence[Any]) -> EventParts:
    """Return the event of EVENT_COLUMNS. Ids and times come as the bytes that the server sent."""
    identity, tenant, type_, key, recorded_at, payload, trace, metadata = parts
    moment = int.from_bytes(recorded_at, "big", signed=True)
    return EventParts(event_id_of(identity), type_.encode(), tenant, key, moment, payload, trace, metadata)
