"""The rows of secrets: the one place that writes what a subscription keeps secret."""

from __future__ import annotations

import warnings
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select
from sqlalchemy import update as sql_update
from sqlalchemy.orm import Session

from outbox.errors import SubscriptionError
from outbox.sealing import PREFIX, newest_key, seal
from outbox.secret import Secret
from outbox.signing import schemes
from outbox.signing.verify import check_secret, new_secret, public_key
from outbox.subscriptions.fingerprints import fingerprint_of, is_fingerprint_of
from outbox.subscriptions.rows import secrets
from outbox.subscriptions.value_checks import whole_number

__all__ = [
    "OwnSecret",
    "check_overlap",
    "expire",
    "overlap_of",
    "put",
    "put_signing",
    "require_other",
    "signing_secret",
]

_DAY_SECONDS = 86_400
_MAX_LIVE_SECRETS = 5
check_overlap = whole_number(0, 30 * _DAY_SECONDS, of="seconds")
_now = func.clock_timestamp()


def put(connection: Session | Connection, subscription_id: UUID, kind: str, text: str, *, hint: str = "") -> None:
    """Store a secret, sealed when the schema has a sealing key; `hint` is what may be shown of it.

    Of kind "signing" it comes beside those that are live, with a fingerprint where it is sealed, which takes 10 ms;
    of every other kind it replaces the one there is.
    Raises SubscriptionError for text that cannot be stored.
    """
    stored = _RedactedText(_seal_if_needed(connection, subscription_id, kind, text))
    if kind != "signing":
        connection.execute(delete(secrets).where(_own(subscription_id), secrets.c.kind == kind))
    columns = {"subscription_id": subscription_id, "kind": kind, "secret": stored, "hint": hint}
    if kind == "signing" and stored != text:
        columns["fingerprint"] = fingerprint_of(text)
    connection.execute(insert(secrets).values(columns))


class _RedactedText(str):
    """Text that a driver stores as it is, and whose repr is redacted: SQLAlchemy's log and errors show parameters."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _seal_if_needed(connection: Session | Connection, subscription_id: UUID, kind: str, text: str) -> str:
    key = newest_key(connection)
    if key is not None:
        return seal(text, key, subscription_id.bytes, kind)
    if text.startswith(PREFIX):
        raise SubscriptionError(f"{kind}: begins with {PREFIX!r}, which only sealed text does; choose another secret")
    return text


class OwnSecret(NamedTuple):
    """What a caller said of the secret to sign with. `weak`: take one that is too short to be safe, and warn."""

    scheme: str
    secret: str | Secret | None
    key_type: str | None
    weak: bool = False

    def __repr__(self) -> str:
        return f"OwnSecret(scheme={self.scheme!r})"


def signing_secret(own: OwnSecret) -> str:
    """Return the secret to sign with: the own one as its scheme spells it, or a new one; '' where nothing is signed.

    Raises SubscriptionError when the scheme is unknown, or cannot use the secret or the type of key.
    """
    if own.scheme == schemes.UNSIGNED:
        if own.secret is not None or own.key_type is not None:
            raise SubscriptionError("scheme: none signs nothing; leave secret and key_type out, or choose a scheme")
        return ""
    if own.secret is None:
        return new_secret(own.scheme, own.key_type)
    text = own.secret.reveal() if isinstance(own.secret, Secret) else own.secret
    checked = _check_weak(own.scheme, text) if own.weak else check_secret(text, own.scheme)
    own_type = "ed25519" if public_key(checked, own.scheme) else "hmac"
    if own.key_type not in (None, own_type):
        raise SubscriptionError(f"key_type: the secret is one of {own_type}; leave key_type out")
    return checked


def _check_weak(scheme: str, text: str) -> str:
    """Return a secret that the scheme can sign with, however short; warn where it would not take it as an own one."""
    try:
        return check_secret(text, scheme)
    except SubscriptionError as error:
        schemes.named(scheme).keys.key(text)
        warnings.warn(
            f"{error}. It is stored all the same, since weak secrets are allowed: rotate it when its receiver can",
            stacklevel=6,
        )
        return text


def put_signing(connection: Session | Connection, subscription_id: UUID, scheme: str, text: str) -> None:
    """Store a signing secret beside those that are live; its public key, if it has one, may be shown."""
    put(connection, subscription_id, "signing", text, hint=public_key(text, scheme))


def require_other(connection: Session | Connection, subscription_id: UUID, scheme: str, text: str) -> None:
    """Raise SubscriptionError where this secret is live already: whoever rotates wants the old one to end.

    A sealed one is compared by its public key or its fingerprint, which those of a former version lack. All texts are
    as the scheme spells them: a prefix is no part of the secret for one scheme, and a part of it for another.
    """
    known = secrets.c.secret == _RedactedText(text)
    if shown := public_key(text, scheme):
        known = or_(known, secrets.c.hint == shown)
    live = or_(secrets.c.expires_at.is_(None), secrets.c.expires_at > _now)
    statement = select(known, secrets.c.fingerprint).where(_own(subscription_id), secrets.c.kind == "signing", live)
    for is_known, fingerprint in connection.execute(statement).all():
        if is_known or is_fingerprint_of(fingerprint or "", text):
            raise SubscriptionError("secret: it signs already, so nothing would be rotated; give another, or none")


def overlap_of(scheme: str, overlap_seconds: int | None, *, changed: bool) -> int:
    """Return how many seconds old secrets sign along, given what was asked for and whether the scheme is a new one.

    A day, unless the request can carry one signature only: then 0, as when the scheme changes.
    """
    if schemes.named(scheme).several_signatures and not changed:
        return _DAY_SECONDS if overlap_seconds is None else overlap_seconds
    if overlap_seconds is not None and overlap_seconds != 0:
        why = "another scheme begins at once" if changed else f"a request of scheme {scheme} carries one signature"
        raise SubscriptionError(f"overlap_seconds: must be 0, since {why}; let the receiver take both secrets first")
    return 0


def expire(connection: Session | Connection, subscription_id: UUID, overlap_seconds: int) -> None:
    """Let every signing secret of the subscription end after the overlap, and delete those which have ended.

    Call it before `put_signing` stores the new one. Raises SubscriptionError where five are still live.
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
