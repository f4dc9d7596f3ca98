"""Dead letters that a person deletes. replay.py puts them back; the relay writes them (relay/store/dead_letters.py)."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

__all__ = ["purge"]

_PURGE = text(
    "delete from outbox.dead_letters where delivery_id = any(cast(:ids as uuid[])) returning delivery_id, tenant"
)


def purge(connection: Connection, delivery_ids: Sequence[UUID]) -> list[tuple[UUID, str]]:
    """dead letter → gone: delete those that a person named; return the ones there were, each with its tenant."""
    return [(row.delivery_id, row.tenant) for row in connection.execute(_PURGE, {"ids": list(delivery_ids)})]
