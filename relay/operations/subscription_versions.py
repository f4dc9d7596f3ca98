"""The version of a subscription's row: who changes what they have read says which version that was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.tenancy import own
from outbox.errors import NotFoundError
from outbox.subscriptions.rows import id_of

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

__all__ = ["lock_version", "read_version"]

_READ = f"select version from outbox.subscriptions where id = :id and removed_at is null and {own('tenant')}"  # noqa: S608


def read_version(connection: Connection, tenant: str | None, subscription_id: UUID | str) -> int:
    """Return the version, which every change moves, of its secrets too. Raises NotFoundError, also when removed."""
    return _version(connection, tenant, subscription_id, "")


def lock_version(connection: Connection, tenant: str | None, subscription_id: UUID | str) -> int:
    """Return the version as it stays until this transaction changes it. Raises NotFoundError."""
    return _version(connection, tenant, subscription_id, " for update")


def _version(connection: Connection, tenant: str | None, subscription_id: UUID | str, lock: str) -> int:
    uuid = id_of(connection, tenant, subscription_id)
    found = connection.execute(text(_READ + lock), {"id": uuid, "asking": tenant}).scalar_one_or_none()
    if found is None:
        raise NotFoundError(f"subscription: no {uuid}, or it is removed")
    return int(found)
