"""The rows of named subscriptions as whoever manages them by a file needs them: whole, with versions, of secrets what
can be told. And the writes of such a manager, which the verbs have no arguments for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, case, func, literal_column, not_, or_, select, update

from outbox.sealing import PREFIX
from outbox.secret import Secret
from outbox.subscriptions.checks import check_filter
from outbox.subscriptions.fields import COLUMNS, NewSubscription
from outbox.subscriptions.fingerprints import fingerprint_of, is_fingerprint_of
from outbox.subscriptions.rows import columns, in_state, secrets, subscriptions
from outbox.subscriptions.signing_secrets import OwnSecret
from outbox.subscriptions.verbs import insert_new

__all__ = [
    "KnownSecret", "StoredSubscription", "add_managed", "lock_named", "note_fingerprints", "read_named", "versions_of",
]  # fmt: skip

_version: ColumnElement[int] = literal_column("subscriptions.version").label("version")


@dataclass(frozen=True)
class KnownSecret:
    """What is known of a stored secret: what may be shown of it, and its fingerprint or, in clear, its text."""

    hint: str = ""
    fingerprint: str | None = None
    clear: Secret | None = None

    def holds(self, text: Secret) -> bool:
        """Tell whether it is this one; of a sealed one without a fingerprint nobody can."""
        if self.fingerprint is not None:
            return is_fingerprint_of(self.fingerprint, text.reveal())
        return self.clear == text


@dataclass(frozen=True, kw_only=True)
class StoredSubscription:
    """A named subscription as it is stored. `columns` are those of its fields, the URL whole; `secrets` by kind."""

    id: UUID
    tenant: str
    name: str
    scheme: str
    managed_by: str | None
    version: int
    columns: Mapping[str, Any] = field(repr=False)
    secrets: Mapping[str, KnownSecret]


def read_named(
    connection: Connection,
    tenant: str | None,
    *,
    names: Collection[str] | None = None,
    manager: str | None = None,
) -> list[StoredSubscription]:
    """Return the subscriptions that have a name and are not removed, by tenant and name.

    Args:
        connection: to the database.
        tenant: whose; None is every tenant's.
        names: only those with one of these names, or of this manager; None is all.
        manager: see `names`.
    """
    statement = select(*columns, _version).where(*_named(tenant, names, manager))
    rows = connection.execute(statement.order_by(subscriptions.c.tenant, subscriptions.c.name)).all()
    known = _secrets_of(connection, [row.id for row in rows])
    return [_stored(row, known.get(row.id, {})) for row in rows]


def _named(tenant: str | None, names: Collection[str] | None, manager: str | None) -> list[ColumnElement[bool]]:
    conditions = [in_state(None), subscriptions.c.name.is_not(None)]
    if tenant is not None:
        conditions.append(subscriptions.c.tenant == tenant)
    if names is not None:
        conditions.append(or_(subscriptions.c.name.in_(names), subscriptions.c.managed_by == manager))
    return conditions


def _stored(row: Any, known: Mapping[str, KnownSecret]) -> StoredSubscription:
    values = {one.name: _value(one.name, getattr(row, one.name)) for one in COLUMNS}
    return StoredSubscription(
        id=row.id, tenant=row.tenant, name=row.name, scheme=row.scheme, managed_by=row.managed_by,
        version=row.version, columns=values, secrets=known,
    )  # fmt: skip


def _value(name: str, value: Any) -> Any:
    """Return a column's value as its field's check gives it."""
    if name == "filter" and value is not None and "$unreadable" not in value:
        return check_filter(name, value)
    return tuple(value) if isinstance(value, list) else value


def _secrets_of(connection: Connection, ids: Collection[UUID]) -> dict[UUID, dict[str, KnownSecret]]:
    """Return what is known of the secrets of each subscription, by kind; of signing secrets the newest that is live."""
    own = secrets.c
    clear = case((not_(func.starts_with(own.secret, PREFIX)), own.secret)).label("clear")
    statement = (
        select(own.subscription_id, own.kind, own.hint, own.fingerprint, clear)
        .where(own.subscription_id.in_(ids), or_(own.expires_at.is_(None), own.expires_at > func.clock_timestamp()))
        .order_by(own.created_at, own.id)
    )
    found: dict[UUID, dict[str, KnownSecret]] = {}
    for row in connection.execute(statement) if ids else ():
        text = None if row.clear is None else Secret(row.clear)
        found.setdefault(row.subscription_id, {})[row.kind] = KnownSecret(row.hint, row.fingerprint, text)
    return found


def lock_named(connection: Connection, ids: Collection[UUID]) -> None:
    """Lock these subscriptions, so that they stay as they are until this transaction changes them or ends."""
    statement = select(subscriptions.c.id).where(subscriptions.c.id.in_(ids)).order_by(subscriptions.c.id)
    connection.execute(statement.with_for_update())


def versions_of(
    connection: Connection, tenant: str | None, *, keys: Collection[tuple[str, str]], manager: str
) -> dict[tuple[str, str], tuple[UUID, int]]:
    """Return id and version of the subscriptions with these tenants and names, and of those of this manager.

    They are by tenant and name. Every change of a row, and of its secrets, moves its version.
    """
    statement = select(subscriptions.c.tenant, subscriptions.c.name, subscriptions.c.managed_by, subscriptions.c.id,
                       _version)  # fmt: skip
    rows = connection.execute(statement.where(*_named(tenant, {name for _, name in keys}, manager)))
    return {
        (row.tenant, row.name): (row.id, row.version)
        for row in rows
        if (row.tenant, row.name) in keys or row.managed_by == manager
    }


def add_managed(
    connection: Connection, tenant: str, manager: str, own: OwnSecret, given: Mapping[str, object]
) -> NewSubscription:
    """Add a subscription that this manager made; tenant `*` is every tenant. Raises SubscriptionError."""
    return insert_new(connection, tenant, {"managed_by": manager}, own, given)


def note_fingerprints(connection: Connection, subscription_id: UUID, texts: Mapping[str, Secret]) -> None:
    """Keep a fingerprint of each of these secrets, by kind, which were just stored; of signing ones the newest."""
    table = secrets.alias("newest")
    for kind, text in texts.items():
        own = and_(table.c.subscription_id == subscription_id, table.c.kind == kind)
        newest = select(table.c.id).where(own).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(1)
        statement = update(secrets).where(secrets.c.id == newest.scalar_subquery())
        connection.execute(statement.values(fingerprint=fingerprint_of(text.reveal())))
