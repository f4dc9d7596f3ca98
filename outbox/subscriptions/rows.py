"""The rows of subscriptions and their secrets: tables, conditions, reads and writes."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    DateTime,
    Text,
    Uuid,
    and_,
    column,
    func,
    literal_column,
    or_,
    select,
    table,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from outbox._connection import require_connection
from outbox._text import brief
from outbox.errors import BusyError, NotFoundError, SubscriptionError
from outbox.formats import shown_url
from outbox.ids import SubscriptionId, text_id
from outbox.subscriptions.checks import EVERY_TENANT, NAME, EveryTenant, check_id, check_whose, is_id
from outbox.subscriptions.fields import COLUMNS, SECRETS, Subscription
from outbox.subscriptions.headers import header_names

__all__ = [
    "change",
    "columns",
    "fields_of",
    "has_id",
    "hold_tenant",
    "id_of",
    "in_state",
    "lock",
    "not_found",
    "of_tenant",
    "read",
    "require_free_name",
    "require_unused_id",
    "secrets",
    "shown_columns",
    "subscriptions",
    "taken_id",
]

subscriptions = table(
    "subscriptions",
    column("id", Uuid),
    column("tenant", Text),
    *(column(field.name, field.column) for field in COLUMNS),
    column("managed_by", Text),
    column("scheme", Text),
    column("paused_at", DateTime(timezone=True)),
    column("drops_while_paused", Boolean),
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
    column("fingerprint", Text),
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


_more: tuple[ColumnElement[Any], ...] = (*(_hint(field.name) for field in SECRETS), _public_keys())
columns = (*subscriptions.c, *_more)
"""The columns that a Subscription is made from, for whoever may change it."""

_shown_url: ColumnElement[str] = literal_column("subscriptions.shown_url").label("url")
shown_columns: tuple[ColumnElement[Any], ...] = (
    *(each for each in subscriptions.c if each.name != "url"),
    _shown_url,
    *_more,
)
"""The same for whoever only reads, who has no right to the whole URL."""


def has_id(subscription_id: object, tenant: object) -> ColumnElement[bool]:
    """Return the condition for this id, or name, and tenant: one row, or none where several tenants have the name.

    Raises NotFoundError and SubscriptionError for what is neither.
    """
    whose = of_tenant(tenant)
    if not _is_name(subscription_id):
        return and_(subscriptions.c.id == check_id("subscription_id", subscription_id), whose)
    named = subscriptions.alias("named")
    there = and_(named.c.name == subscription_id, named.c.removed_at.is_(None))
    of_it = true() if tenant is EVERY_TENANT else named.c.tenant == check_whose(tenant)
    only = select(func.array_agg(named.c.id)[1]).where(there, of_it).having(func.count() == 1).scalar_subquery()
    return and_(subscriptions.c.id == only, whose)


def id_of(connection: Connection, tenant: str | None, subscription_id: UUID | str) -> SubscriptionId:
    """Return the id that an argument means: an id as it is, whether it is there or not; a name is looked up.

    It is looked up among the tenant's subscriptions; for the operator, None, among all.

    Raises:
        NotFoundError: nothing has the name, or several tenants' subscriptions have it.
        SubscriptionError: no such tenant can be.
    """
    if not _is_name(subscription_id):
        return SubscriptionId.of(subscription_id)
    condition = has_id(subscription_id, EVERY_TENANT if tenant is None else tenant)
    found = connection.execute(select(subscriptions.c.id).where(condition)).scalar_one_or_none()
    if found is None:
        raise not_found(subscription_id)
    return SubscriptionId.of(found)


def _is_name(subscription_id: object) -> bool:
    return isinstance(subscription_id, str) and bool(re.fullmatch(NAME, subscription_id)) and not is_id(subscription_id)


def of_tenant(tenant: object) -> ColumnElement[bool]:
    """Return the condition for a tenant's rows; EVERY_TENANT are all. Raises SubscriptionError."""
    name = check_whose(tenant)
    return true() if name is None else subscriptions.c.tenant == name


def in_state(state: object) -> ColumnElement[bool]:
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
    if not isinstance(state, str | None) or state not in conditions:
        raise SubscriptionError(f"state: {brief(state)} is not one of active, paused, disabled, removed")
    return conditions[state]


def not_found(subscription_id: object) -> NotFoundError:
    """Return the error for an id or a name without a row."""
    if _is_name(subscription_id):
        return NotFoundError(
            f"subscription_id: no subscription, or more than one tenant's, is named {subscription_id!r}; give its id"
        )
    name = text_id("sub", check_id("subscription_id", subscription_id))
    return NotFoundError(f"subscription: no {name}, or it is removed")


def require_free_name(connection: Session | Connection, tenant: str, name: str | None) -> None:
    """Raise SubscriptionError where a subscription of the tenant has this name."""
    if name is None:
        return
    taken = and_(subscriptions.c.tenant == tenant, subscriptions.c.name == name, in_state(None))
    found = connection.execute(select(subscriptions.c.id).where(taken)).scalar_one_or_none()
    if found is not None:
        raise SubscriptionError(f"name: {name} is taken by {text_id('sub', found)}; choose another one")


# Whose an attempt is, its subscription says: an id that somebody had would show what was sent to them.
_HISTORY = text("""
select exists (select from outbox.attempts where subscription_id = :id)
    or exists (select from outbox.dead_letters where subscription_id = :id)
    or exists (select from outbox.deliveries where subscription_id = :id)
""")


def require_unused_id(connection: Session | Connection, subscription_id: UUID) -> None:
    """Raise SubscriptionError where something is kept of what had this id before."""
    if connection.execute(_HISTORY, {"id": subscription_id}).scalar_one():
        raise taken_id(subscription_id)


def taken_id(subscription_id: UUID) -> SubscriptionError:
    """Return the error for an id that cannot be given once more."""
    return SubscriptionError(f"id: {text_id('sub', subscription_id)} is taken; leave id out for a new one")


def fields_of(row: Any) -> dict[str, Any]:
    """Return a row of `columns` as the fields of a Subscription."""
    values: dict[str, Any] = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    arrays = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return (
        values
        | arrays
        | {
            "id": text_id("sub", values["id"]),
            "public_keys": tuple(filter(None, values["public_keys"] or ())),
            "headers": header_names(values["headers"]),
            "url": shown_url(values["url"], values["format"]),
        }
    )


_HOLD = text("select outbox.hold_tenant(:tenant)")
_LOCK_NOT_AVAILABLE = "55P03"


def hold_tenant(connection: Session | Connection, tenant: str) -> None:
    """Let one transaction of a tenant count and add subscriptions at a time, until it ends.

    Raises BusyError where another one does not end in time; this one has to be rolled back.
    """
    try:
        connection.execute(_HOLD, {"tenant": tenant})
    except DBAPIError as error:
        if (getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)) != _LOCK_NOT_AVAILABLE:
            raise
        raise BusyError("another request of this tenant is adding a subscription; try again in a moment") from None


def lock(connection: Session | Connection, subscription_id: str, tenant: str | EveryTenant) -> Any:
    """Lock a subscription, then read and return its row: before the lock it may change. Raises NotFoundError."""
    statement = select(subscriptions.c.id).where(has_id(subscription_id, tenant), in_state(None)).with_for_update()
    connection = require_connection(connection)
    found = connection.execute(statement).scalar_one_or_none()
    if found is None:
        raise not_found(subscription_id)
    return read(connection, found)


def read(connection: Session | Connection, subscription_id: UUID) -> Any:
    """Return the row of a subscription that is there, its columns as `columns` has them."""
    return connection.execute(select(*columns).where(subscriptions.c.id == subscription_id)).one()


def change(
    connection: Session | Connection, subscription_id: str, tenant: str | EveryTenant, values: dict[str, Any]
) -> Subscription:
    """Write these columns and return the subscription.

    Raises:
        NotFoundError: there is none, or it is removed.
        SubscriptionError: another transaction took its new name meanwhile; this one has to be rolled back.
    """
    statement = update(subscriptions).where(has_id(subscription_id, tenant), in_state(None)).values(**values)
    connection = require_connection(connection)
    try:
        row = connection.execute(statement.returning(*columns)).one_or_none()
    except IntegrityError as error:
        if "subscriptions_name" not in str(error.orig):  # whatever the driver: the message names the index
            raise
        raise SubscriptionError(f"name: {values['name']} was taken a moment ago; choose another one") from None
    if row is None:
        raise not_found(subscription_id)
    return Subscription(**fields_of(row))
