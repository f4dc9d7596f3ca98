"""The rows of secrets: the one place that writes what a subscription keeps secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select
from sqlalchemy import update as sql_update

from outbox.errors import SubscriptionError
from outbox.sealing import PREFIX, newest_key, seal
from outbox.subscription_rows import secrets

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import ColumnElement, Connection
    from sqlalchemy.orm import Session

__all__ = ["expire", "put"]

_MAX_LIVE_SECRETS = 5
_now = func.clock_timestamp()


def put(connection: Session | Connection, subscription_id: UUID, kind: str, text: str, *, hint: str = "") -> None:
    """Store a secret, sealed when the schema has a sealing key; `hint` is what may be shown of it.

    Of kind 'signing' it comes beside those that are live; of every other kind it replaces the one there is.
    Raises SubscriptionError for text that cannot be stored.
    """
    stored = _stored(connection, subscription_id, kind, text)
    if kind != "signing":
        connection.execute(delete(secrets).where(_own(subscription_id), secrets.c.kind == kind))
    connection.execute(insert(secrets).values(subscription_id=subscription_id, kind=kind, secret=stored, hint=hint))


def _stored(connection: Session | Connection, subscription_id: UUID, kind: str, text: str) -> str:
    key = newest_key(connection)
    if key is not None:
        return seal(text, key, subscription_id.bytes, kind)
    if text.startswith(PREFIX):
        raise SubscriptionError(f"{kind}: begins with {PREFIX!r}, which only sealed text does; choose another secret")
    return text


def expire(connection: Session | Connection, subscription_id: UUID, overlap_seconds: int) -> None:
    """Let every signing secret of the subscription end with the overlap, and forget those which have ended.

    Raises SubscriptionError when five are live still: a rotation then waits, or overlaps by 0 seconds.
    """
    signing = (_own(subscription_id), secrets.c.kind == "signing")
    ends = _now + func.make_interval(0, 0, 0, 0, 0, 0, overlap_seconds)
    connection.execute(sql_update(secrets).where(*signing).values(expires_at=func.least(secrets.c.expires_at, ends)))
    connection.execute(delete(secrets).where(*signing, secrets.c.expires_at <= _now))
    live = connection.execute(select(func.count()).select_from(secrets).where(*signing)).scalar_one()
    if live >= _MAX_LIVE_SECRETS:
        raise SubscriptionError(
            f"secret: {live} older secrets still sign along; give overlap_seconds=0, or wait until they end"
        )


def _own(subscription_id: UUID) -> ColumnElement[bool]:
    return secrets.c.subscription_id == subscription_id
