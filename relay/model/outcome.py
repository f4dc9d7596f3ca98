"""What the network said to one attempt: the one value that leaves relay.http."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

__all__ = ["Outcome", "OutcomeKind", "milliseconds_since"]

OutcomeKind = Literal[
    "delivered",  # 2xx
    "http_3xx",  # a redirect, never followed
    "http_4xx",
    "http_5xx",
    "protocol",  # what came is not HTTP/1.x
    "timeout",
    "refused",  # nobody listens
    "connection",  # closed, reset, unreachable
    "dns",
    "tls",
    "authorization",  # no access token for the receiver could be had
    "blocked_address",  # the address policy forbids it
    "local",  # our own fault, such as no free file descriptor; not charged
    "aborted",  # cut because the relay was told to leave at once
    "internal",  # an exception inside the relay
    "key_unavailable",  # a secret is sealed to a key that this relay does not hold; not charged
    "unsendable",  # the subscription's URL or secrets cannot be used
    "event_gone",  # the event's row was removed by hand
]


@dataclass(slots=True)
class Outcome:
    """The class of what happened, and what came back.

    status, headers (4 KiB at most) and retry_after_seconds (0 to 86400, of a 429 or 503) are None without them;
    error is None when there is a status. excerpt: the first bytes of the body, or of what was not HTTP. address: the
    one dialled. sent is False only when no byte of the request can have reached the receiver.
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


def milliseconds_since(started: float) -> int:
    """Return whole milliseconds since this time of `time.monotonic()`."""
    return round((time.monotonic() - started) * 1000)
