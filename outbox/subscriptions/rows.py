"""The rows of subscriptions and their secrets: tables, conditions, reads and writes, and the values people get."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Integer,
    SmallInteger,
    Text,
    Uuid,
    and_,
    column,
    func,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by

from outbox.errors import NotFoundError, SubscriptionError
from outbox.ids import parse_id, text_id
from outbox.signing.verify import public_key
from outbox.subscriptions.headers import header_names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = [
    "NewSubscription",
    "Subscription",
    "change",
    "columns",
    "fields_of",
    "in_state",
    "locked",
    "named",
    "not_found",
    "read",
    "secrets",
    "subscriptions",
]

subscriptions = table(
    "subscriptions",
    column("id", Uuid),
    column("tenant", Text),
    column("url", Text),
    column("types", ARRAY(Text)),
    column("description", Text),
    column("metadata", JSONB),
    column("timeout_seconds", Integer),
    column("schedule_seconds", ARRAY(Integer)),
    column("scheme", Text),
    column("final_statuses", ARRAY(SmallInteger)),
    column("paused_at", DateTime(timezone=True)),
    column("disabled_at", DateTime(timezone=True)),
    column("disabled_reason", Text),
    column("held_until", DateTime(timezone=True)),
    column("removed_at", DateTime(timezone=True)),
    column("created_at", DateTime(timezone=True)),
    column("updated_at", DateTime(timezone=True)),
    schema="outbox",
)
secrets = table(
    "secrets",
    column("id", Uuid),
    column("subscription_id", Uuid),
    column("kind", Text),
    column("secret", Text),
    column("hint", Text),
    column("created_at", DateTime(timezone=True)),
    column("expires_at", DateTime(timezone=True)),
    schema="outbox",
)


def _hint(kind: str) -> ColumnElement[str]:
    """Return what may be shown of the subscription's secret of this kind, '' without one."""
    own = and_(secrets.c.subscription_id == subscriptions.c.id, secrets.c.kind == kind)
    hint = select(secrets.c.hint).where(own).correlate(subscriptions).scalar_subquery()
    return func.coalesce(hint, "").label(kind)


def _public_keys() -> ColumnElement[list[str]]:
    """Return the public keys of the live signing secrets, newest first, '' for one that has none."""
    live = or_(secrets.c.expires_at.is_(None), secrets.c.expires_at > func.clock_timestamp())
    own = and_(secrets.c.subscription_id == subscriptions.c.id, secrets.c.kind == "signing", live)
    hints = func.array_agg(aggregate_order_by(secrets.c.hint, secrets.c.created_at.desc(), secrets.c.id.desc()))
    return select(hints).where(own).correlate(subscriptions).scalar_subquery().label("public_keys")


columns = (*subscriptions.c, *map(_hint, ("headers", "authentication", "tls")), _public_keys())
"""What a Subscription is read from."""


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """A subscription as it was read. `id` is text (`sub_…`), times are aware; it never holds secrets.

    Of `headers` it has the names; `authentication` and `tls` tell in words what there is, '' without.
    `public_keys` are those of Ed25519 signatures (`whpk_…`), newest first; () of other keys.
    `held_until` is when the endpoint's last Retry-After ends; it may be over.
    """

    id: str
    tenant: str
    url: str
    types: tuple[str, ...]
    description: str
    metadata: Mapping[str, str]
    timeout_seconds: int
    schedule_seconds: tuple[int, ...]
    scheme: str
    public_keys: tuple[str, ...]
    headers: tuple[str, ...]
    authentication: str
    tls: str
    final_statuses: tuple[int, ...]
    paused_at: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    held_until: datetime | None
    removed_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def state(self) -> Literal["active", "paused", "disabled", "removed"]:
        """What it does now; what is disabled may be paused too."""
        if self.removed_at or self.disabled_at:
            return "removed" if self.removed_at else "disabled"
        return "paused" if self.paused_at else "active"


@dataclass(frozen=True, kw_only=True)
class NewSubscription(Subscription):
    """A subscription together with its signing secret, which is handed out this once; repr hides it."""

    secret: str = field(repr=False)

    @property
    def public_key(self) -> str:
        """The `whpk_…` that belongs to an Ed25519 secret; '' for every other."""
        return public_key(self.secret, self.scheme)


def named(subscription_id: str, tenant: str | None) -> ColumnElement[bool]:
    """Return the condition for this id, and for this tenant unless None. Raises NotFoundError for what is no id."""
    condition = subscriptions.c.id == parse_id("sub", subscription_id)
    return condition if tenant is None else and_(condition, subscriptions.c.tenant == tenant)


def in_state(state: str | None) -> ColumnElement[bool]:
    """Return the condition for a state; None is all but removed. Raises SubscriptionError for an unknown one."""
    own = subscriptions.c
    there, enabled = own.removed_at.is_(None), own.disabled_at.is_(None)
    conditions: dict[str | None, ColumnElement[bool]] = {
        None: there,
        "active": and_(there, enabled, own.paused_at.is_(None)),
        "paused": and_(there, enabled, own.paused_at.is_not(None)),
        "disabled": and_(there, own.disabled_at.is_not(None)),
        "removed": own.removed_at.is_not(None),
    }
    if state not in conditions:
        raise SubscriptionError(f"state: {state!r} is not one of active, paused, disabled, removed")
    return conditions[state]


def not_found(subscription_id: str) -> NotFoundError:
    """Return the error for an id without a row."""
    return NotFoundError(f"subscription: no {text_id('sub', parse_id('sub', subscription_id))}, or it is removed")


def fields_of(row: Any) -> dict[str, Any]:
    """Return a row of `subscriptions` as the fields of a Subscription."""
    values: dict[str, Any] = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return values | {
        "id": text_id("sub", values["id"]),
        "types": tuple(values["types"]),
        "schedule_seconds": tuple(values["schedule_seconds"]),
        "final_statuses": tuple(values["final_statuses"]),
        "public_keys": tuple(filter(None, values["public_keys"] or ())),
        "headers": header_names(values["headers"]),
    }


def locked(connection: Session | Connection, subscription_id: str, tenant: str | None) -> Any:
    """Lock a subscription and return its row as it is then: read after the lock, not before. Raises NotFoundError."""
    statement = select(subscriptions.c.id).where(named(subscription_id, tenant), in_state(None)).with_for_update()
    found = connection.execute(statement).scalar_one_or_none()
    if found is None:
        raise not_found(subscription_id)
    return read(connection, found)


def read(connection: Session | Connection, subscription_id: UUID) -> Any:
    """Return the row of a subscription that is there, its columns as `columns` has them."""
    return connection.execute(select(*columns).where(subscriptions.c.id == subscription_id)).one()


def change(
    connection: Session | Connection, subscription_id: str, tenant: str | None, values: dict[str, Any]
) -> Subscription:
    """Write these columns and return the subscription. Raises NotFoundError, also for one that is removed."""
    statement = update(subscriptions).where(named(subscription_id, tenant), in_state(None)).values(**values)
    row = connection.execute(statement.returning(*columns)).one_or_none()
    if row is None:
        raise not_found(subscription_id)
    return Subscription(**fields_of(row))
