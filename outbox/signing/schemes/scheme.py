"""The parts of a signature scheme."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from outbox.signing.schemes.declaration import SchemeDeclaration

Lines = Callable[[bytes, bytes, bytes, bytes], bytes]

__all__ = ["MESSAGE_ID", "TIMESTAMP", "KeyRule", "Scheme", "Signer", "Verified"]

MESSAGE_ID = re.compile(r"[!-\-/-~]{1,256}")  # visible ASCII without the dot
TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}")


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """Signs many requests with the same secrets; keyed hashes are prepared once and copied for each request.

    `lines(id, type, timestamp, body)` returns the header lines of one request, each with its CRLF. All are bytes; the
    timestamp is decimal, seconds since 1970 UTC.
    """

    lines: Lines

    def __repr__(self) -> str:
        return "<Signer>"


class Verified(NamedTuple):
    """The verified request's id ('' where the signature does not cover it) and time (None where it carries none)."""

    id: str
    timestamp: int | None


@dataclass(frozen=True, slots=True)
class KeyRule:
    """Which secrets a scheme takes. Every function raises SubscriptionError, whose text never holds the secret.

    key: returns the bytes of a secret, also of one that only an older version took.
    check: returns a user's own secret in its canonical spelling.
    makers: functions that make a new secret, by type of key; the first is the default.
    public_key: returns the public key of a secret, '' when it is symmetric.
    """

    key: Callable[[object], bytes]
    check: Callable[[object], str]
    makers: Mapping[str, Callable[[], str]]
    public_key: Callable[[str], str] = lambda _secret: ""


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to sign: its declaration, and what follows from it.

    headers: every header that a receiver reads, in lower case; `verify` gets all of them.
    sends: every header that a signer writes, in lower case.
    sign: makes the `lines` of a Signer from secrets, newest first; raises SubscriptionError for one it cannot use.
    verify: (secrets, headers, body) → Verified, raising SignatureError unless a signature of one of the secrets matches
        and SubscriptionError for a secret it cannot use. The caller checks the age of the timestamp.
    note: what it does besides, which no declaration can say; '' where it does nothing else.
    """

    row: SchemeDeclaration
    headers: tuple[str, ...]
    sends: tuple[str, ...]
    keys: KeyRule
    sign: Callable[[Sequence[str]], Lines]
    verify: Callable[[Sequence[str], Mapping[str, str], bytes], Verified]
    note: str = ""

    @property
    def name(self) -> str:
        """The name that a subscription gives."""
        return self.row.name

    @property
    def several_signatures(self) -> bool:
        """Whether one request can carry a signature for each live secret."""
        return self.row.several
