"""What a signature scheme is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from outbox.signing.schemes.declaration import SchemeDeclaration

    Lines = Callable[[bytes, bytes, bytes, bytes], bytes]

__all__ = ["ALONG", "MESSAGE_ID", "TIMESTAMP", "Claim", "KeyRule", "Scheme", "Signer"]

ALONG = ("webhook-id", "webhook-timestamp")
"""Headers that go along in every scheme: a receiver tells repetitions by the id, whatever it verifies."""

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


class Claim(NamedTuple):
    """What a verified request says: its id where the signature covers it ('' else), its time where it carries one."""

    id: str
    timestamp: int | None


@dataclass(frozen=True, slots=True)
class KeyRule:
    """Which secrets a scheme takes. Every function raises SubscriptionError, whose text never holds the secret.

    key: returns the bytes that a secret stands for, of any that could ever have been taken.
    check: returns a secret of the user's own in its canonical spelling.
    makers: how to make a new one, by type of key; the first is the default.
    public_key: what may be shown of a secret, '' when it is symmetric.
    """

    key: Callable[[object], bytes]
    check: Callable[[object], str]
    makers: Mapping[str, Callable[[], str]]
    public_key: Callable[[str], str] = lambda _secret: ""


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to sign: its declaration, and what follows from it.

    headers: what a receiver verifies by, in lower case; `judge` gets all of them.
    sends: every header that a signer writes, in lower case.
    sign: makes the `lines` of a Signer from secrets, newest first; raises SubscriptionError for one it cannot use.
    judge: (secrets, headers, body) → Claim, raising SignatureError unless a signature of one of the secrets matches
        and SubscriptionError for a secret it cannot use. The age of the timestamp is the caller's to judge.
    note: what it does besides that no declaration can say; '' where it does nothing else.
    """

    row: SchemeDeclaration
    headers: tuple[str, ...]
    sends: tuple[str, ...]
    keys: KeyRule
    sign: Callable[[Sequence[str]], Lines]
    judge: Callable[[Sequence[str], Mapping[str, str], bytes], Claim]
    note: str = ""

    @property
    def name(self) -> str:
        """The word by which a subscription names it."""
        return self.row.name

    @property
    def several_signatures(self) -> bool:
        """Whether one request can carry a signature for each live secret."""
        return self.row.several
