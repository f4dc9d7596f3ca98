"""The outcome of one attempt: what the network said. It is the one value that leaves relay.http."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "DELIVERED", "NOT_ASKED", "OVERLOADED", "RETRY_AFTER_MAX_SECONDS", "UNCHARGED", "Outcome", "OutcomeKind", "Reading",
    "Scope", "milliseconds_since",
]  # fmt: skip

OVERLOADED = frozenset({429, 503})
"""Statuses by which a receiver asks for fewer requests, or for none until the time of its Retry-After."""

RETRY_AFTER_MAX_SECONDS = 86_400.0
"""A receiver that asks for more time than this is asked again after this time."""


class OutcomeKind(StrEnum):
    """What happened, in one word; it is the text in `attempts.outcome` and in logs."""

    DELIVERED = "delivered"
    """2xx."""
    HTTP_3XX = "http_3xx"
    """A redirect, never followed."""
    HTTP_4XX = "http_4xx"
    """The receiver refuses the request."""
    SLOWED = "slowed"
    """429 or 503 of a receiver that takes other requests: it is sent fewer. The attempt is not charged."""
    HTTP_5XX = "http_5xx"
    """The receiver failed, or answered with a status that HTTP does not know."""
    PROTOCOL = "protocol"
    """The answer is not HTTP/1.x."""
    TIMEOUT = "timeout"
    """No complete answer came in time."""
    REFUSED = "refused"
    """Nobody listens at the address."""
    CONNECTION = "connection"
    """The connection was closed or reset, or there is no route."""
    DNS = "dns"
    """The host name does not resolve."""
    TLS = "tls"
    """The handshake failed, or the certificate does not verify."""
    AUTHORIZATION = "authorization"
    """No access token for the receiver could be fetched."""
    BLOCKED_ADDRESS = "blocked_address"
    """The address policy forbids the URL or its address."""
    LOCAL = "local"
    """This machine could not send, for example without a free file descriptor. The attempt is not charged."""
    STOOD_STILL = "stood_still"
    """This relay's process did not run when the attempt's time ended, and found no answer then. It is not charged."""
    ABORTED = "aborted"
    """The relay was told to leave at once and cut the request."""
    INTERNAL = "internal"
    """The relay raised an exception, or its process for what is large ended while it made what was to be sent."""
    KEY_UNAVAILABLE = "key_unavailable"
    """A secret is sealed to a key that this relay does not hold. The attempt is not charged."""
    UNSENDABLE = "unsendable"
    """The subscription's URL or its secrets cannot be used."""
    EVENT_GONE = "event_gone"
    """Somebody removed the event's row while a delivery of it was outstanding."""
    UNFORMATTED = "unformatted"
    """The event has no body in the subscription's format: a value of it cannot stand there. Nothing was sent."""
    NOT_TAKEN = "not_taken"
    """2xx, but by the rules of this receiver the answer says that it did not take the event."""
    PAYLOAD_UNREADABLE = "payload_unreadable"
    """The server cannot read the event: its data is damaged there."""
    TRANSFORMATION_FAILED = "transformation_failed"
    """The subscription's transformation makes nothing of this event that could be sent."""


DELIVERED = OutcomeKind.DELIVERED
"""For what each delivery asks: Python 3.11 takes ten times as long to find a member in its enum (140 ns)."""

NOT_ASKED = frozenset(
    {
        *(OutcomeKind.LOCAL, OutcomeKind.KEY_UNAVAILABLE, OutcomeKind.UNSENDABLE, OutcomeKind.BLOCKED_ADDRESS),
        *(OutcomeKind.EVENT_GONE, OutcomeKind.PAYLOAD_UNREADABLE),
        *(OutcomeKind.TRANSFORMATION_FAILED, OutcomeKind.UNFORMATTED),
    }
)
"""Outcomes that came about before anything went to the endpoint: they say nothing of how it answers."""

UNCHARGED = frozenset({OutcomeKind.SLOWED, OutcomeKind.STOOD_STILL})
"""Outcomes whose attempt was made, is on record, and is given back all the same."""


class Scope(StrEnum):
    """Whom an answer that asks for time is about."""

    ENDPOINT = "endpoint"
    """The endpoint that gave it."""
    RECEIVER = "receiver"
    """Every endpoint of its format at its receiver, which counts, or bans, the address that we send from."""


class Reading(NamedTuple):
    """What an answer means at a receiver whose rules are known; see model/receiver_rules.py.

    final: the same bytes will never be taken. disables: nothing will be taken from us there any more. reason: why, for
    people.
    """

    reason: str
    final: bool = False
    disables: bool = False


class Outcome(NamedTuple):
    """What happened to one attempt, and what came back.

    status, headers (4 KiB at most) and retry_after_seconds (0 to 86400, of a 429 or 503; of a 2xx by a receiver's own
    rules) are None when the answer has none; error is None when there is a status without a reading. excerpt: the first
    bytes of the body, or of an answer that is not HTTP. address: the one dialled. sent is False only when no byte of
    the request can have reached the receiver. scope: whom retry_after_seconds holds back.
    """

    kind: OutcomeKind
    status: int | None
    milliseconds: int
    error: str | None = None
    address: str | None = None
    headers: str | None = None
    excerpt: bytes = b""
    retry_after_seconds: float | None = None
    sent: bool = True
    reading: Reading | None = None
    scope: Scope = Scope.ENDPOINT


def milliseconds_since(started: float) -> int:
    """Return whole milliseconds since `started`, a time of `time.monotonic()`."""
    return round((time.monotonic() - started) * 1000)
