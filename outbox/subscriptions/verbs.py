"""The verbs of subscriptions, in the caller's transaction.

Every function takes a SQLAlchemy Session or Connection first and neither commits nor rolls back. Asynchronous code
calls `await session.run_sync(outbox.subscribe, url, types)`. Each looks at one tenant's subscriptions, at those of ''
where there are no tenants; another tenant's are not found. Only the operator asks for those of every tenant, by
`tenant=outbox.EVERY_TENANT`. An application that passes on what a request holds can never say that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack
from uuid import UUID

from sqlalchemy import Connection, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from outbox._connection import require_connection
from outbox.errors import ArgumentError, NotFoundError, SubscriptionError
from outbox.secret import Secret, hides_secrets
from outbox.signing import schemes
from outbox.subscriptions import signing_secrets, stored_credentials
from outbox.subscriptions.batching import check_batching
from outbox.subscriptions.checks import EveryTenant, check_id, check_reason, check_tenant
from outbox.subscriptions.declaration import with_fields
from outbox.subscriptions.fields import SECRETS, Changes, NewSubscription, Settings, Subscription, check_fields
from outbox.subscriptions.formatting import format_after
from outbox.subscriptions.known_types import require_known_types
from outbox.subscriptions.rows import (
    change,
    fields_of,
    lock,
    read,
    require_free_name,
    require_unused_id,
    subscriptions,
    taken_id,
)
from outbox.subscriptions.stored_credentials import StoredCredentials
from outbox.subscriptions.value_checks import check_bool

__all__ = ["add", "add_for_every_tenant", "disable", "insert_new", "pause", "remove", "resume", "update"]

_now = func.clock_timestamp()


@hides_secrets
@with_fields(Settings)
def add(
    connection: Session | Connection,
    url: str,
    types: Sequence[str],
    *,
    tenant: str = "",
    id: str | None = None,  # noqa: A002
    secret: str | Secret | None = None,
    scheme: str = "standard",
    key_type: Literal["hmac", "ed25519"] | None = None,
    allow_weak_secret: bool = False,
    **settings: Unpack[Settings],
) -> NewSubscription:
    """Subscribe `url` to the tenant's events of these types, and return it with its secret.

    Args:
        connection: a Session or Connection; the caller commits.
        url: the endpoint, https://… (http:// only where the relay allows it).
        types: 1 to 200 patterns: an exact type, a prefix and `.*`, or `*`.
        tenant: whose events; '' where there are no tenants.
        id: an own id, `sub_…` or a UUID, as when endpoints are imported; default a new one. One of which there is a
            history is taken, though what had it was removed.
        secret: an own signing secret as its scheme wants it (`whsec_…`, base64 of 24 to 64 bytes); default a new one.
        scheme: how requests are signed: one that `relay schemes list` shows, or declared by declare_scheme(); `none`
            sends them unsigned, so that anyone can forge them: only for a receiver that cannot verify.
        key_type: of a new secret: `hmac`, or with scheme `standard` also `ed25519`, whose public key receivers get.
        allow_weak_secret: take an own secret that is too short to be safe, with a warning; for imported endpoints.
        {fields}

    Raises:
        SubscriptionError: a field was refused, the id or the name is taken, or a pattern matches no type of a closed
            catalogue; nothing was written.
    """
    _refuse_unknown("add", settings, Settings)
    check_bool("allow_weak_secret", allow_weak_secret)
    own = signing_secrets.OwnSecret(scheme, secret, key_type, weak=allow_weak_secret)
    return insert_new(connection, check_tenant(tenant), _own_id(id), own, {"url": url, "types": types, **settings})


@hides_secrets
@with_fields(Settings)
def add_for_every_tenant(
    connection: Session | Connection,
    url: str,
    types: Sequence[str],
    *,
    id: str | None = None,  # noqa: A002
    secret: str | Secret | None = None,
    scheme: str = "standard",
    key_type: Literal["hmac", "ed25519"] | None = None,
    allow_weak_secret: bool = False,
    **settings: Unpack[Settings],
) -> NewSubscription:
    """Subscribe `url` to every tenant's events, for the operator's command line only; else as `add`."""
    _refuse_unknown("add_for_every_tenant", settings, Settings)
    check_bool("allow_weak_secret", allow_weak_secret)
    own = signing_secrets.OwnSecret(scheme, secret, key_type, weak=allow_weak_secret)
    return insert_new(connection, "*", _own_id(id), own, {"url": url, "types": types, **settings})


def _own_id(given: object) -> dict[str, UUID]:
    """Return the column of an own id, {} without one."""
    try:
        return {} if given is None else {"id": check_id("id", given)}
    except NotFoundError as error:
        raise SubscriptionError(str(error)) from None


def insert_new(
    connection: Session | Connection,
    tenant: str,
    more: Mapping[str, Any],
    own: signing_secrets.OwnSecret,
    given: Mapping[str, object],
) -> NewSubscription:
    """Check and write a new subscription of this tenant; `more` are other columns. Raises SubscriptionError."""
    secret = signing_secrets.signing_secret(own)
    scheme = schemes.UNSIGNED if own.scheme == schemes.UNSIGNED else schemes.named(own.scheme).name
    values, credentials = _check_given(given)
    stored_credentials.check_together(values["url"], {}, credentials)
    values |= format_after(values, credentials)
    check_batching(values)
    connection = require_connection(connection)
    require_known_types(connection, values["types"])
    if "id" in more:
        require_unused_id(connection, more["id"])
    statement = insert(subscriptions).values(tenant=tenant, scheme=scheme, **more, **values)
    returning = statement.on_conflict_do_nothing().returning(subscriptions.c.id)
    subscription_id = connection.execute(returning).scalar_one_or_none()
    if subscription_id is None:
        require_free_name(connection, tenant, values.get("name"))
        if "id" not in more:
            raise SubscriptionError(f"name: {values['name']} was taken until a moment ago; try again")
        raise taken_id(more["id"])
    if secret:
        signing_secrets.put_signing(connection, subscription_id, scheme, secret)
    stored_credentials.write(connection, subscription_id, credentials)
    return NewSubscription(secret=secret, **fields_of(read(connection, subscription_id)))


def _check_given(given: Mapping[str, object]) -> tuple[dict[str, Any], StoredCredentials]:
    """Return what to store in columns, and what among the secrets."""
    stored = check_fields(**given)
    credentials = {field.name: stored.pop(field.name) for field in SECRETS if field.name in stored}
    return stored, credentials


def _refuse_unknown(verb: str, given: Mapping[str, object], known: type) -> None:
    """Raise a TypeError, as Python does for a keyword that is no argument."""
    for name in given.keys() - known.__annotations__.keys():
        raise ArgumentError(f"{verb}() got an unexpected keyword argument {name!r}")


@hides_secrets
@with_fields(Changes)
def update(
    connection: Session | Connection,
    subscription_id: str,
    *,
    tenant: str | EveryTenant = "",
    **changes: Unpack[Changes],
) -> Subscription:
    """Change the fields that are given, of deliveries under way too; None puts a field back to its default.

    Another `url` is not bound by what the old one asked for: it is not held back, but disabled until `resume`.
    `headers`, `authentication` and `tls` replace what there is as a whole; None takes it away.

    Args:
        connection: a Session or Connection; the caller commits.
        subscription_id: which one.
        tenant: whose it must be.
        {fields}

    Raises:
        SubscriptionError: a field was refused, or none was given; nothing was written.
        NotFoundError: no such subscription for this tenant, or it is removed.
    """
    _refuse_unknown("update", changes, Changes)
    values, credentials = _check_given(changes)
    if not changes:
        raise SubscriptionError("update: nothing to change; give at least one field")
    connection = require_connection(connection)
    row = lock(connection, subscription_id, tenant)
    if values.get("url", row.url) != row.url:
        values["held_until"] = None
    hints = stored_credentials.hints_of(row)
    stored_credentials.check_together(values.get("url", row.url), hints, credentials)
    values |= format_after(values, credentials, row, hints)
    check_batching(values, row)
    if "types" in values:
        require_known_types(connection, set(values["types"]) - set(row.types))
    if values.get("name") != row.name:
        require_free_name(connection, row.tenant, values.get("name"))
    stored_credentials.write(connection, row.id, credentials)
    if not values:
        return Subscription(**fields_of(read(connection, row.id)))
    return change(connection, subscription_id, tenant, values)


def pause(
    connection: Session | Connection, subscription_id: str, *, drop: bool = False, tenant: str | EveryTenant = ""
) -> Subscription:
    """Stop sending until `resume`. Deliveries gather and wait, or with `drop` none are made of what comes meanwhile.

    With `drop`, events that are resolved meanwhile are counted as not matched, and `resume` does not bring them back;
    what it had before waits. Pausing twice keeps the first time; the last pause says whether it drops.
    """
    check_bool("drop", drop)
    paused_at = func.coalesce(subscriptions.c.paused_at, _now)
    return change(connection, subscription_id, tenant, {"paused_at": paused_at, "drops_while_paused": drop})


def disable(
    connection: Session | Connection, subscription_id: str, *, reason: str, tenant: str | EveryTenant = ""
) -> Subscription:
    """Stop sending for a reason (1 to 500 bytes) that everybody is shown, as a relay does after 410 Gone.

    Deliveries gather and wait until `resume`. Disabling twice keeps the first time and reason.
    """
    own = subscriptions.c
    return change(
        connection, subscription_id, tenant,
        {"disabled_at": func.coalesce(own.disabled_at, _now),
         "disabled_reason": func.coalesce(own.disabled_reason, check_reason(reason))},
    )  # fmt: skip


def resume(connection: Session | Connection, subscription_id: str, *, tenant: str | EveryTenant = "") -> Subscription:
    """Send again, beginning with what gathered: not paused, disabled or held back any more, and its breaker closed."""
    closed = ("paused_at", "disabled_at", "disabled_reason", "held_until")
    return change(connection, subscription_id, tenant, {**dict.fromkeys(closed), "drops_while_paused": False})


def remove(connection: Session | Connection, subscription_id: str, *, tenant: str | EveryTenant = "") -> Subscription:
    """End it for good: no event matches it any more, and what it had still to get is cancelled."""
    return change(connection, subscription_id, tenant, {"removed_at": _now})
