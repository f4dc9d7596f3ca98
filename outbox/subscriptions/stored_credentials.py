"""Own headers, authentication and TLS of a subscription: checked together, stored as secrets, shown as hints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete
from sqlalchemy.orm import Session

from outbox.errors import SubscriptionError
from outbox.subscriptions.fields import SECRETS
from outbox.subscriptions.headers import header_names
from outbox.subscriptions.rows import secrets
from outbox.subscriptions.signing_secrets import put

__all__ = ["StoredCredentials", "check_together", "hints_of", "write"]

StoredCredentials = dict[str, tuple[str, str] | None]
"""Kind to the text to store and what may be shown of it; None takes away what there is."""


def hints_of(row: Any) -> dict[str, str]:
    """Return what may be shown of each kind in a row read from `rows.columns`."""
    return {field.name: getattr(row, field.name) for field in SECRETS}


def check_together(url: str, hints: Mapping[str, str], given: StoredCredentials) -> None:
    """Raise SubscriptionError where credentials exclude each other; `hints` are those of what is stored."""
    after = {**hints, **{kind: "" if one is None else one[1] for kind, one in given.items()}}
    names = [name.lower() for name in header_names(after.get("headers", ""))]
    if after.get("authentication") and "authorization" in names:
        raise SubscriptionError("headers: Authorization is set by authentication; give one of the two")
    if after.get("tls") and url.startswith("http://"):
        raise SubscriptionError("tls: the URL is http://, which knows no certificates; use https or give no tls")


def write(connection: Session | Connection, subscription_id: UUID, given: StoredCredentials) -> None:
    """Store these in place of what there is of their kinds."""
    for kind, one in given.items():
        if one is None:
            own = secrets.c.subscription_id == subscription_id
            connection.execute(delete(secrets).where(own, secrets.c.kind == kind))
        else:
            text, hint = one
            put(connection, subscription_id, kind, text, hint=hint)
