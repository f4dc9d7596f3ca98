"""Own headers, authentication and TLS of a subscription: checked together, stored as secrets, shown as hints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

from sqlalchemy import delete

from outbox.errors import SubscriptionError
from outbox.subscriptions.authentication import TLS, Authentication, authentication_of, stored_authentication, tls_of
from outbox.subscriptions.headers import check_headers, header_names
from outbox.subscriptions.rows import secrets
from outbox.subscriptions.signing_secrets import put

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["Credentials", "check_together", "checked", "hints_of", "write"]

Credentials = dict[str, tuple[str, str] | None]
"""Kind to the text to store and what may be shown of it; None takes away what there is."""


def checked(**given: object) -> Credentials:
    """Check `headers`, `authentication` and `tls`, those that are given; None is "none". Raises SubscriptionError."""
    checks: dict[str, Any] = {"headers": _headers, "authentication": _authentication, "tls": _tls}
    return {kind: None if value is None else checks[kind](value) for kind, value in given.items()}


def hints_of(row: Any) -> dict[str, str]:
    """Return what may be shown of each kind in a row read from `subscription_rows.columns`."""
    return {"headers": row.headers, "authentication": row.authentication, "tls": row.tls}


def check_together(url: str, hints: Mapping[str, str], given: Credentials) -> None:
    """Raise SubscriptionError where parts exclude each other; `hints` are those of the stored ones."""
    after = {**hints, **{kind: "" if one is None else one[1] for kind, one in given.items()}}
    names = [name.lower() for name in header_names(after.get("headers", ""))]
    if after.get("authentication") and "authorization" in names:
        raise SubscriptionError("headers: Authorization is set by authentication; give one of the two")
    if after.get("tls") and url.startswith("http://"):
        raise SubscriptionError("tls: the URL is http://, which knows no certificates; use https or give no tls")


def write(connection: Session | Connection, subscription_id: UUID, given: Credentials) -> None:
    """Store what was checked in place of what there is."""
    for kind, one in given.items():
        if one is None:
            own = secrets.c.subscription_id == subscription_id
            connection.execute(delete(secrets).where(own, secrets.c.kind == kind))
        else:
            text, hint = one
            put(connection, subscription_id, kind, text, hint=hint)


def _headers(value: object) -> tuple[str, str] | None:
    headers = check_headers(value)
    return (json.dumps(headers), ", ".join(headers)) if headers else None


def _authentication(value: object) -> tuple[str, str]:
    if isinstance(value, Mapping):
        value = authentication_of(value)
    if not isinstance(value, get_args(Authentication)):
        raise SubscriptionError("authentication: give BasicAuth, BearerToken or OAuth2ClientCredentials")
    return stored_authentication(value), value.hint


def _tls(value: object) -> tuple[str, str]:
    from outbox.subscriptions.certificates import check_tls

    own = tls_of(value) if isinstance(value, Mapping) else value
    if not isinstance(own, TLS):
        raise SubscriptionError("tls: give outbox.TLS(…)")
    return json.dumps(asdict(own)), check_tls(own)
