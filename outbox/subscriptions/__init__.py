"""Who gets which events where: the control plane of subscriptions, in the caller's transaction.

Every function takes a SQLAlchemy Session or Connection first and neither commits nor rolls back. Asynchronous code
calls `await session.run_sync(outbox.subscribe, url, types)`. A tenant's request passes `tenant=`: what is another
tenant's is then not found. Without it every tenant's are seen, which is for the operator.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import func, insert, select

from outbox.errors import SubscriptionError
from outbox.ids import parse_id
from outbox.signing import schemes
from outbox.subscriptions import fields
from outbox.subscriptions import signing_secrets as subscription_secrets
from outbox.subscriptions import stored_credentials as credentials
from outbox.subscriptions.rows import (
    NewSubscription,
    Subscription,
    change,
    columns,
    fields_of,
    in_state,
    locked,
    named,
    not_found,
    read,
    subscriptions,
)

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from outbox.subscriptions.authentication import TLS, Authentication
    from outbox.subscriptions.stored_credentials import Credentials

__all__ = [
    "NewSubscription",
    "Subscription",
    "add",
    "add_for_every_tenant",
    "disable",
    "get",
    "list",
    "pause",
    "remove",
    "resume",
    "rotate_secret",
    "update",
]

_now = func.clock_timestamp()


class _Omitted(Enum):
    """What an argument is when it was not given; None would be an answer."""

    OMITTED = "omitted"


_OMITTED = _Omitted.OMITTED


def add(
    connection: Session | Connection,
    url: str,
    types: Sequence[str],
    *,
    tenant: str = "",
    secret: str | None = None,
    description: str = "",
    metadata: Mapping[str, str] | None = None,
    timeout_seconds: int = fields.DEFAULT_TIMEOUT_SECONDS,
    schedule_seconds: Sequence[int] | None = None,
    final_statuses: Sequence[int] | None = None,
    headers: Mapping[str, str] | None = None,
    authentication: Authentication | None = None,
    tls: TLS | None = None,
    scheme: str = "standard",
    key_type: Literal["hmac", "ed25519"] | None = None,
) -> NewSubscription:
    """Subscribe `url` to the tenant's events of these types, and return it with its secret.

    Args:
        connection: a Session or Connection; the caller commits.
        url: the endpoint, https://… (http:// only where the relay allows it).
        types: 1 to 200 patterns: an exact type, a prefix and `.*`, or `*`.
        tenant: whose events; '' where there are no tenants.
        secret: an own signing secret as its scheme wants it (`whsec_…`, base64 of 24 to 64 bytes); default a new one.
        description: free text, at most 2 kB.
        metadata: text to text, at most 8 kB as JSON.
        timeout_seconds: of one attempt, 1 to 300.
        schedule_seconds: 0 to 20 delays, one after each failure; () is one attempt. Default: 75 hours.
        final_statuses: answers after which a delivery is a dead letter at once, such as [400, 413, 422]; of 400 to 499,
            without 408, 410, 425 and 429. Default: none, since a 4xx during somebody's deploy passes.
        headers: own headers of every request, at most 50 and 8 KiB; their values are kept as secrets.
        authentication: BasicAuth, BearerToken or OAuth2ClientCredentials, kept as a secret.
        tls: a client certificate, an own certificate authority, or both, kept as a secret.
        scheme: how requests are signed: one that `relay schemes list` shows, or declared by declare_scheme().
        key_type: of a new secret: `hmac`, or with scheme `standard` also `ed25519`, whose public key receivers get.

    Raises:
        SubscriptionError: a field was refused; nothing was written.
    """
    return _insert(
        connection, fields.check_tenant(tenant), subscription_secrets.signing_secret(scheme, secret, key_type),
        fields.checked(
            url=url, types=types, description=description, metadata=metadata, timeout_seconds=timeout_seconds,
            schedule_seconds=schedule_seconds, final_statuses=final_statuses, scheme=scheme,
        ),
        credentials.checked(headers=headers, authentication=authentication, tls=tls),
    )  # fmt: skip


def add_for_every_tenant(
    connection: Session | Connection,
    url: str,
    types: Sequence[str],
    *,
    secret: str | None = None,
    headers: Mapping[str, str] | None = None,
    authentication: Authentication | None = None,
    tls: TLS | None = None,
    scheme: str = "standard",
    key_type: Literal["hmac", "ed25519"] | None = None,
    **settings: Any,
) -> NewSubscription:
    """Subscribe `url` to every tenant's events, for the operator's command line only; else as `add`."""
    given = credentials.checked(headers=headers, authentication=authentication, tls=tls)
    fresh = subscription_secrets.signing_secret(scheme, secret, key_type)
    return _insert(connection, "*", fresh, fields.checked(url=url, types=types, scheme=scheme, **settings), given)


def _insert(
    connection: Session | Connection, tenant: str, secret: str, values: dict[str, Any], given: Credentials
) -> NewSubscription:
    credentials.check_together(values["url"], {}, given)
    statement = insert(subscriptions).values(tenant=tenant, **values).returning(subscriptions.c.id)
    subscription_id = connection.execute(statement).scalar_one()
    subscription_secrets.put_signing(connection, subscription_id, values["scheme"], secret)
    credentials.write(connection, subscription_id, given)
    return NewSubscription(secret=secret, **fields_of(read(connection, subscription_id)))


def get(connection: Session | Connection, subscription_id: str, *, tenant: str | None = None) -> Subscription:
    """Return one subscription, also a removed one as long as its row is there. Raises NotFoundError."""
    row = connection.execute(select(*columns).where(named(subscription_id, tenant))).one_or_none()
    if row is None:
        raise not_found(subscription_id)
    return Subscription(**fields_of(row))


def list(  # noqa: A001 - the verb of the interface
    connection: Session | Connection,
    *,
    tenant: str | None = None,
    state: Literal["active", "paused", "disabled", "removed"] | None = None,
    type: str | None = None,  # noqa: A002
    after: str | None = None,
    limit: int = 100,
) -> builtins.list[Subscription]:
    """Return subscriptions, oldest first, at most `limit` (1 to 1000).

    Args:
        connection: a Session or Connection.
        tenant: only this tenant's; None is every tenant's.
        state: only these; None is all but the removed ones.
        type: only those which get events of this type.
        after: the id of the last one of the page before.
        limit: size of the page.
    """
    if isinstance(limit, bool) or not 1 <= limit <= 1000:
        raise SubscriptionError(f"limit: {limit} is not a whole number from 1 to 1000")
    conditions = [in_state(state)]
    if tenant is not None:
        conditions.append(subscriptions.c.tenant == tenant)
    if type is not None:
        conditions.append(subscriptions.c.types.overlap(func.outbox.patterns_of(type)))
    if after is not None:
        conditions.append(subscriptions.c.id > parse_id("sub", after))
    statement = select(*columns).where(*conditions).order_by(subscriptions.c.id).limit(limit)
    return [Subscription(**fields_of(row)) for row in connection.execute(statement)]


def update(
    connection: Session | Connection,
    subscription_id: str,
    *,
    tenant: str | None = None,
    url: str | _Omitted = _OMITTED,
    types: Sequence[str] | _Omitted = _OMITTED,
    description: str | _Omitted | None = _OMITTED,
    metadata: Mapping[str, str] | _Omitted | None = _OMITTED,
    timeout_seconds: int | _Omitted | None = _OMITTED,
    schedule_seconds: Sequence[int] | _Omitted | None = _OMITTED,
    final_statuses: Sequence[int] | _Omitted | None = _OMITTED,
    headers: Mapping[str, str] | _Omitted | None = _OMITTED,
    authentication: Authentication | _Omitted | None = _OMITTED,
    tls: TLS | _Omitted | None = _OMITTED,
) -> Subscription:
    """Change the fields that are given, of deliveries under way too; None puts a field back to its default.

    Another `url` is not bound by what the old one asked for: it is not held back, but disabled until `resume`.
    `headers`, `authentication` and `tls` replace what there is as a whole; None takes it away.

    Raises:
        SubscriptionError: a field was refused, or none was given; nothing was written.
        NotFoundError: no such subscription for this tenant, or it is removed.
    """
    given = {
        "url": url, "types": types, "description": description, "metadata": metadata,
        "timeout_seconds": timeout_seconds, "schedule_seconds": schedule_seconds, "final_statuses": final_statuses,
    }  # fmt: skip
    secret = {"headers": headers, "authentication": authentication, "tls": tls}
    values = fields.checked(**{name: value for name, value in given.items() if value is not _OMITTED})
    chosen = credentials.checked(**{name: value for name, value in secret.items() if value is not _OMITTED})
    if not values and not chosen:
        raise SubscriptionError("update: nothing to change; give at least one field")
    row = locked(connection, subscription_id, tenant)
    if values.get("url", row.url) != row.url:
        values["held_until"] = None
    credentials.check_together(values.get("url", row.url), credentials.hints_of(row), chosen)
    credentials.write(connection, row.id, chosen)
    return change(connection, subscription_id, tenant, values) if values else get(connection, subscription_id)


def pause(connection: Session | Connection, subscription_id: str, *, tenant: str | None = None) -> Subscription:
    """Stop sending; deliveries gather and wait. Pausing twice keeps the first time."""
    return change(connection, subscription_id, tenant, {"paused_at": func.coalesce(subscriptions.c.paused_at, _now)})


def disable(
    connection: Session | Connection, subscription_id: str, *, reason: str, tenant: str | None = None
) -> Subscription:
    """Stop sending for a reason (1 to 500 bytes) that everybody is shown, as a relay does after 410 Gone.

    Deliveries gather and wait until `resume`. Disabling twice keeps the first time and reason.
    """
    own = subscriptions.c
    return change(
        connection, subscription_id, tenant,
        {"disabled_at": func.coalesce(own.disabled_at, _now),
         "disabled_reason": func.coalesce(own.disabled_reason, fields.check_reason(reason))},
    )  # fmt: skip


def resume(connection: Session | Connection, subscription_id: str, *, tenant: str | None = None) -> Subscription:
    """Send again, beginning with what gathered, whether it was paused, disabled or held back by its Retry-After."""
    closed = ("paused_at", "disabled_at", "disabled_reason", "held_until")
    return change(connection, subscription_id, tenant, dict.fromkeys(closed))


def remove(connection: Session | Connection, subscription_id: str, *, tenant: str | None = None) -> Subscription:
    """End it for good: no event matches it any more, and what it had still to get is cancelled."""
    return change(connection, subscription_id, tenant, {"removed_at": _now})


def rotate_secret(
    connection: Session | Connection,
    subscription_id: str,
    *,
    tenant: str | None = None,
    secret: str | None = None,
    scheme: str | None = None,
    key_type: Literal["hmac", "ed25519"] | None = None,
    overlap_seconds: int | None = None,
) -> NewSubscription:
    """Give it a new secret and return that; the old ones sign along for a while.

    Args:
        connection: a Session or Connection; the caller commits.
        subscription_id: which one.
        tenant: only if it is this tenant's.
        secret: an own one, as its scheme wants it; default a new one.
        scheme: sign by this scheme from now on; the old secrets then end at once.
        key_type: of a new secret, as for `add`; default the type it has.
        overlap_seconds: how long old secrets sign along, 0 to 30 days; default a day, or 0 where a request carries one
            signature only.

    Raises:
        SubscriptionError: a field was refused, or five secrets are live already.
        NotFoundError: no such subscription for this tenant, or it is removed.
    """
    row = locked(connection, subscription_id, tenant)
    by = row.scheme if scheme is None else schemes.named(scheme).name
    if secret is None and key_type is None and by == row.scheme:
        key_type = "ed25519" if any((row.public_keys or [])[:1]) else "hmac"
    fresh = subscription_secrets.signing_secret(by, secret, key_type)
    overlap = subscription_secrets.overlap_of(by, overlap_seconds, changed=by != row.scheme)
    subscription_secrets.expire(connection, row.id, overlap)
    subscription_secrets.put_signing(connection, row.id, by, fresh)
    if by != row.scheme:
        change(connection, subscription_id, tenant, {"scheme": by})
    return NewSubscription(secret=fresh, **fields_of(read(connection, row.id)))
