"""Record an event once: its id is made of tenant and idempotency key, so that whoever records it knows the id at once.

The database decides which transaction writes the event (0010_record.sql says how); the formulas stand there too.
"""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

from outbox._text import brief, complaint
from outbox.errors import RecordError

__all__ = ["checked_key", "content_of", "id_of_key", "other_content"]

_MAX_BYTES = 256


def checked_key(value: object) -> str:
    """Return an idempotency key. Raises RecordError unless it is a text of 1 to 256 bytes."""
    if refused := complaint("idempotency_key", value, _MAX_BYTES):
        raise RecordError(refused)
    if value == "":
        raise RecordError("idempotency_key: is empty, and would stand for every event; leave it out, or name one")
    return str.__str__(value)


def id_of_key(tenant: str, idempotency_key: str) -> UUID:
    """Return the event's id, a UUID of version 8, as outbox.id_of_key() does."""
    number = int.from_bytes(sha256(f"{tenant}\0{idempotency_key}".encode()).digest()[:16], "big")
    number = (number & ~(0xF << 76)) | (0x8 << 76)
    return UUID(int=(number & ~(0x3 << 62)) | (0x2 << 62))


def content_of(type_: str, key: str | None, payload: str) -> bytes:
    """Return the hash of what must be the same where the key is, as outbox.content_of() does."""
    marked = "" if key is None else f"\x01{key}"
    return sha256(f"{type_}\0{marked}\0{payload}".encode()).digest()


def other_content(idempotency_key: str) -> RecordError:
    """Return the error for a key that was used for something else."""
    return RecordError(
        f"idempotency_key: {brief(idempotency_key)} was used for an event with another type, key or data; give what is "
        "another event a key of its own"
    )
