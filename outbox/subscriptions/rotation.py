"""Rotate a signing secret: a new one signs, and the old ones sign along for a while, in the caller's transaction."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from outbox._connection import require_connection
from outbox.errors import SubscriptionError
from outbox.secret import Secret, hides_secrets
from outbox.signing import schemes
from outbox.subscriptions import signing_secrets
from outbox.subscriptions.checks import EveryTenant
from outbox.subscriptions.fields import NewSubscription
from outbox.subscriptions.rows import change, fields_of, lock, read

__all__ = ["rotate_secret"]


@hides_secrets
def rotate_secret(
    connection: Session | Connection,
    subscription_id: str,
    *,
    tenant: str | EveryTenant = "",
    secret: str | Secret | None = None,
    scheme: str | None = None,
    key_type: Literal["hmac", "ed25519"] | None = None,
    overlap_seconds: int | None = None,
) -> NewSubscription:
    """Give it a new secret and return that; the old ones sign along for a while.

    Args:
        connection: a Session or Connection; the caller commits.
        subscription_id: which one.
        tenant: whose it must be.
        secret: an own one, as its scheme wants it; default a new one.
        scheme: sign by this scheme from now on; the old secrets then end at once.
        key_type: of a new secret, as for `add`; default the type it has.
        overlap_seconds: how long old secrets sign along, 0 to 30 days; default a day, or 0 where a request carries one
            signature only.

    Raises:
        SubscriptionError: a field was refused, the secret is one that signs already, or five secrets are live.
        NotFoundError: no such subscription for this tenant, or it is removed.
    """
    _check_rotation(scheme, overlap_seconds)
    connection = require_connection(connection)
    row = lock(connection, subscription_id, tenant)
    by = row.scheme if scheme is None else schemes.named(scheme).name
    if by == schemes.UNSIGNED:
        raise SubscriptionError("scheme: it is unsigned, so there is no secret; give scheme, such as standard, to sign")
    if secret is None and key_type is None and by == row.scheme:
        key_type = "ed25519" if any((row.public_keys or [])[:1]) else "hmac"
    fresh = signing_secrets.signing_secret(signing_secrets.OwnSecret(by, secret, key_type))
    if secret is not None and by == row.scheme:
        signing_secrets.require_other(connection, row.id, by, fresh)
    overlap = signing_secrets.overlap_of(by, overlap_seconds, changed=by != row.scheme)
    signing_secrets.expire(connection, row.id, overlap)
    signing_secrets.put_signing(connection, row.id, by, fresh)
    if by != row.scheme:
        change(connection, subscription_id, tenant, {"scheme": by})
    return NewSubscription(secret=fresh, **fields_of(read(connection, row.id)))


def _check_rotation(scheme: str | None, overlap_seconds: int | None) -> None:
    """Refuse what is wrong whatever the subscription is, before anything is locked."""
    if scheme is not None:
        schemes.named(scheme)
    if overlap_seconds is not None:
        signing_secrets.check_overlap("overlap_seconds", overlap_seconds)
