"""Public ids: TypeIDs (prefix and 26 characters of Crockford base32, lower case) over UUIDv7 (RFC 9562 §5.7).

Inside the database an id is a uuid; people see `evt_…`, `sub_…`, `dlv_…`. Both forms are accepted everywhere.
"""

from __future__ import annotations

import os
import re
import time
from typing import ClassVar, Self
from uuid import UUID

from outbox.errors import NotFoundError

__all__ = [
    "AuditId", "BulkOperationId", "DeliveryId", "ErasureId", "EventId", "Id", "InboxId", "PortalLinkId",
    "RequestedTestId", "SubscriptionId", "TokenId", "batch_id_of", "event_id_of", "new_uuid7", "parse_id", "text_id",
]  # fmt: skip

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS = [(first + second).encode() for first in _ALPHABET for second in _ALPHABET]
_RANDOM_BITS = 0x0FFF_3FFF_FFFF_FFFF_FFFF
_VERSION_AND_VARIANT = 0x7000_8000_0000_0000_0000
_TYPEID = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")


def new_uuid7() -> UUID:
    """Return a UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big") & _RANDOM_BITS
    return UUID(int=(time.time_ns() // 1_000_000 << 80) | random | _VERSION_AND_VARIANT)


def text_id(prefix: str, value: UUID) -> str:
    """Return the TypeID of `value`, e.g. `evt_01jd3v…`."""
    return f"{prefix}_{_base32(value.int).decode()}"


def event_id_of(raw: bytes) -> bytes:
    """Return the text id `evt_…` of an event's 16 raw bytes, as bytes: what goes on the wire."""
    return b"evt_" + _base32(int.from_bytes(raw, "big"))


def batch_id_of(raw: bytes) -> bytes:
    """Return the text id `bat_…` of a batch's 16 raw bytes, as bytes: what goes on the wire."""
    return b"bat_" + _base32(int.from_bytes(raw, "big"))


def _base32(number: int) -> bytes:
    """Return 130 bits (two of them zero) as 26 characters, two at a time; a loop would take half as long again."""
    pair, n = _PAIRS, number
    return b"".join((
        pair[n >> 120], pair[n >> 110 & 1023], pair[n >> 100 & 1023], pair[n >> 90 & 1023], pair[n >> 80 & 1023],
        pair[n >> 70 & 1023], pair[n >> 60 & 1023], pair[n >> 50 & 1023], pair[n >> 40 & 1023],
        pair[n >> 30 & 1023], pair[n >> 20 & 1023], pair[n >> 10 & 1023], pair[n & 1023],
    ))  # fmt: skip


def parse_id(prefix: str, text: object, field: str = "id") -> UUID:
    """Return the UUID of a TypeID with this prefix, or of a plain UUID as text.

    Raises:
        NotFoundError: the text is neither; it cannot name a row. The message begins with `field`.
    """
    if not isinstance(text, str):
        raise NotFoundError(f"{field}: must be text of the form {prefix}_…, not {type(text).__qualname__}")
    head, separator, tail = text.partition("_")
    if separator and head == prefix and _TYPEID.fullmatch(tail):
        number = 0
        for character in tail:
            number = number << 5 | _VALUE[character]
        return UUID(int=number)
    if _UUID.fullmatch(text):
        return UUID(text)
    shown = text if len(text) <= 40 else text[:40] + "…"
    raise NotFoundError(f"{field}: {shown!r} is not an id of the form {prefix}_… (26 characters) or a UUID")


class Id(UUID):
    """The id of one thing: a UUID to the database; `str()` is the text that people see, such as `evt_01jd3v…`."""

    __slots__ = ()
    prefix: ClassVar[str]

    @classmethod
    def of(cls, value: UUID | str, field: str = "id") -> Self:
        """Return the id for a UUID, or for text in either form.

        Raises:
            NotFoundError: it is the id of no such thing, or of another kind. The message begins with `field`.
        """
        if isinstance(value, Id) and value.prefix != cls.prefix:
            value = str(value)
        return cls(int=(value if isinstance(value, UUID) else parse_id(cls.prefix, value, field)).int)

    @classmethod
    def maybe(cls, value: UUID | None) -> Self | None:
        """Return the id for a column that may be null."""
        return None if value is None else cls.of(value)

    def __str__(self) -> str:
        return text_id(self.prefix, self)


class EventId(Id):
    """The id of an event, `evt_…`."""

    __slots__ = ()
    prefix = "evt"


class SubscriptionId(Id):
    """The id of a subscription, `sub_…`."""

    __slots__ = ()
    prefix = "sub"


class DeliveryId(Id):
    """The id of a delivery, `dlv_…`."""

    __slots__ = ()
    prefix = "dlv"


class AuditId(Id):
    """The id of a row of the audit, `aud_…`."""

    __slots__ = ()
    prefix = "aud"


class TokenId(Id):
    """The id of a token of the HTTP API, `tok_…`."""

    __slots__ = ()
    prefix = "tok"


class PortalLinkId(Id):
    """The id of a link into the portal, `lnk_…`."""

    __slots__ = ()
    prefix = "lnk"


class BulkOperationId(Id):
    """The id of a bulk operation, `bulk_…`."""

    __slots__ = ()
    prefix = "bulk"


class ErasureId(Id):
    """The id of an erasure, `ers_…`."""

    __slots__ = ()
    prefix = "ers"


class RequestedTestId(Id):
    """The id of a test message that was asked for, `tst_…`."""

    __slots__ = ()
    prefix = "tst"


class InboxId(Id):
    """The id of a request that was received, `inb_…`."""

    __slots__ = ()
    prefix = "inb"
