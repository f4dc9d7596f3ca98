"""Requests with an Idempotency-Key: the first one is done, in its transaction; others get its answer for a day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from outbox.errors import OutboxError
from relay.store.postgres_errors import is_locked

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from outbox.ids import TokenId

__all__ = ["KEPT_HOURS", "AskedBefore", "UnderWayError", "claim", "keep"]

KEPT_HOURS = 24
_WAIT = text("select set_config('lock_timeout', '5s', true)")
_WAIT_AS_BEFORE = text("select set_config('lock_timeout', '0', true)")
# A few at a time, those that nobody holds: every request with a key takes some away, so that they do not gather.
_FORGET = text(f"""
delete from outbox.api_requests where (token_id, key_hash) in (
    select token_id, key_hash from outbox.api_requests
    where at < clock_timestamp() - interval '{KEPT_HOURS} hours' order by at limit 20 for update skip locked)
""")  # noqa: S608 - a constant
_CLAIM = text("""
insert into outbox.api_requests (token_id, key_hash, request_hash) values (:token_id, :key_hash, :request_hash)
on conflict do nothing returning true
""")
_FIND = text("select request_hash, answer from outbox.api_requests where token_id = :token_id and key_hash = :key_hash")
_KEEP = text("update outbox.api_requests set answer = :answer where token_id = :token_id and key_hash = :key_hash")


class UnderWayError(OutboxError):
    """A request with this key is being done at this moment."""


@dataclass(frozen=True, slots=True)
class AskedBefore:
    """The hash of what was asked with a key before, and its answer; None where that was too long to keep."""

    request_hash: bytes
    answer: bytes | None


def claim(connection: Connection, token_id: TokenId, key_hash: bytes, request_hash: bytes) -> AskedBefore | None:
    """Take a key for the request of this transaction; None where it is the first. All hashes are of 32 bytes.

    Raises UnderWayError where another transaction has it and does not end within five seconds.
    """
    connection.execute(_FORGET)
    key = {"token_id": token_id, "key_hash": key_hash}
    connection.execute(_WAIT)
    try:
        first = connection.execute(_CLAIM, {**key, "request_hash": request_hash}).scalar_one_or_none()
    except OperationalError as error:
        if not (error.orig and is_locked(error.orig)):
            raise
        raise UnderWayError("idempotency_key: a request with it is under way; ask again when that has ended") from error
    connection.execute(_WAIT_AS_BEFORE)
    if first:
        return None
    row: Any = connection.execute(_FIND, key).one()
    return AskedBefore(bytes(row.request_hash), None if row.answer is None else bytes(row.answer))


def keep(connection: Connection, token_id: TokenId, key_hash: bytes, answer: bytes) -> None:
    """Keep the answer of the request that claimed the key; it is stored as given, at most 1 MiB."""
    connection.execute(_KEEP, {"token_id": token_id, "key_hash": key_hash, "answer": answer})
