"""Tokens of the HTTP API: made, shown once, kept as a hash, and recognised again.

A token is of one tenant, or of every tenant (None), and has rights. It may make tokens of its own tenant with rights
that it has itself, and none that outlive it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from outbox._text import complaint
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import own
from outbox.errors import NotFoundError, OutboxError
from outbox.ids import TokenId
from outbox.secret import NeverPickled
from outbox.subscriptions.checks import check_tenant

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from sqlalchemy import Connection

    from outbox.control.filters import Filters

__all__ = [
    "RIGHTS",
    "Maker",
    "NewToken",
    "Right",
    "Token",
    "TokenError",
    "authenticate",
    "create",
    "has_form",
    "list_tokens",
    "revoke",
]

Right = Literal["read", "write", "operate", "admin"]
RIGHTS: tuple[Right, ...] = get_args(Right)
"""read: look at everything. write: record events; add, change, pause, test and remove subscriptions. operate: retry,
cancel, replay and purge; stop all sending. admin: tokens and the limits of tenants. None of them holds another."""

_PREFIX = "rtk_"
SESSION_NAME = "browser session "
"""How the name of a session begins; what it says of who signed in is believed (sessions.py)."""
_TOKEN = re.compile(rf"{_PREFIX}[A-Za-z0-9_-]{{43}}")
_LONGEST = timedelta(days=36_500)


class TokenError(OutboxError):
    """A token was refused; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as it is listed. `tenant` None is every tenant; `last_used_at` is exact to a minute."""

    id: TokenId
    name: str
    tenant: str | None
    rights: tuple[Right, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewToken(NeverPickled):
    """A token that was made, with its text, which is handed out this once."""

    token: Token
    text: str

    def __repr__(self) -> str:
        return f"NewToken(token={self.token!r}, text='***')"


@dataclass(frozen=True, slots=True)
class Maker:
    """What a token that makes another one may give away."""

    rights: Collection[Right]
    expires_at: datetime | None


_COLUMNS = "id, name, tenant, rights, created_by, created_at, expires_at, last_used_at, revoked_at"
_INSERT = text(f"""
insert into outbox.tokens (name, hash, tenant, rights, expires_at)
values (:name, :hash, :tenant, :rights,
        coalesce(:expires_at, clock_timestamp() + make_interval(secs => cast(:expires_seconds as double precision))))
returning {_COLUMNS}
""")  # noqa: S608 - constants
_LIVE = "revoked_at is null and (expires_at is null or expires_at > clock_timestamp())"
_FIND = text(f"""
select {_COLUMNS}, last_used_at is null or last_used_at < clock_timestamp() - interval '1 minute' as note
from outbox.tokens where hash = :hash and {_LIVE}
""")  # noqa: S608 - constants
# Two requests at once note it once: the second does not wait for the first.
_NOTE = text("""
update outbox.tokens set last_used_at = clock_timestamp()
where id = (select id from outbox.tokens where id = :id for no key update skip locked)
""")


def has_form(given: str) -> bool:
    """Tell whether a text could be a token; what could not is not asked about."""
    return _TOKEN.fullmatch(given) is not None


def authenticate(connection: Connection, given: str) -> Token | None:
    """Return the token of this text, and note that it is used; None where it is unknown, expired or revoked.

    Where that cannot be noted, as with a full disk, it is valid all the same: who could mend it is not locked out.
    What is compared are hashes, by their index: how long that takes says nothing about a token.
    """
    if not has_form(given):
        return None
    row = connection.execute(_FIND, {"hash": _hash(given)}).one_or_none()
    if row is None:
        return None
    if row.note:
        with suppress(OperationalError), connection.begin_nested():
            connection.execute(_NOTE, {"id": row.id})
    return _token(row)


def create(
    connection: Connection,
    tenant: str | None,
    *,
    name: str,
    rights: Collection[str],
    whose: str | None,
    expires: datetime | timedelta | None = None,
    maker: Maker | None = None,
    is_session: bool = False,
) -> NewToken:
    """Make a token and return it with its text.

    Args:
        connection: in a transaction, whose actor is noted as the maker.
        tenant: who asks; None is the operator.
        name: what it is for; 1 to 200 bytes, printable.
        rights: one or more of RIGHTS.
        whose: the tenant that it is of; None for every tenant, which only the operator may make.
        expires: when it ends, or how long it holds on the database's clock; None for never.
        maker: the token that makes it; None on a command line.
        is_session: whether it is a session of the dashboard, which alone may have the name of one.

    Raises:
        TokenError: an argument was refused, or the maker has no such right.
        SubscriptionError: the tenant's name was refused.
    """
    if tenant is not None and whose != tenant:
        raise TokenError(f"tenant: this token makes tokens of its own tenant, {tenant!r}; leave tenant out")
    values = {
        "name": _checked_name(name, is_session=is_session),
        "tenant": None if whose is None else check_tenant(whose),
        "rights": _checked_rights(rights),
        **_checked_end(connection, expires),
    }
    given = _PREFIX + secrets.token_urlsafe(32)
    row = connection.execute(_INSERT, {**values, "hash": _hash(given)}).one()
    made = _token(row)
    if maker is not None:
        _require_within(made, maker)
    return NewToken(token=made, text=given)


def _require_within(made: Token, maker: Maker) -> None:
    """Raise TokenError, which ends the transaction, where a token has more than the one that makes it."""
    more = [right for right in made.rights if right not in maker.rights]
    if more:
        raise TokenError(f"rights: this token has no right {', '.join(more)} itself, and cannot give it; leave it out")
    if maker.expires_at is not None and (made.expires_at is None or made.expires_at > maker.expires_at):
        raise TokenError("expires_at: this token cannot make one that outlives it; name an earlier time")


_LISTING = Listing(
    name="tokens",
    columns={"tenant": "tenant"},
    own=own("tenant"),
    keys=(Key("id", "id", "uuid", descending=True),),
)


def list_tokens(
    connection: Connection, tenant: str | None, filters: Filters, *, revoked: bool = False, after: str | None = None
) -> Page[Token]:
    """Return tokens, the newest first; those that are revoked or expired only with `revoked`."""
    where, parameters = _LISTING.where(tenant, filters, after)
    live = "true" if revoked else _LIVE
    statement = f"select {_COLUMNS} from outbox.tokens where {where} and {live} {_LISTING.order_by} limit :limit"  # noqa: S608
    return _LISTING.page(connection.execute(text(statement), parameters).all(), filters.limit, _token)


_REVOKE = text(f"""
update outbox.tokens set revoked_at = coalesce(revoked_at, clock_timestamp())
where id = :id and {own("tenant")} returning {_COLUMNS}
""")  # noqa: S608 - constants


def revoke(connection: Connection, tenant: str | None, token_id: UUID | str) -> Token:
    """End a token at once and return it; what it made stays. Revoking twice keeps the first time.

    Raises NotFoundError where there is none of this tenant's.
    """
    uuid = TokenId.of(token_id)
    row = connection.execute(_REVOKE, {"id": uuid, "asking": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"token: no {uuid}")
    return _token(row)


def _hash(given: str) -> bytes:
    return hashlib.sha256(given.encode()).digest()


def _checked_name(name: object, *, is_session: bool) -> str:
    if refused := complaint("name", name, 200):
        raise TokenError(refused)
    text_of_name = str(name)
    if not text_of_name.strip() or not text_of_name.isprintable():
        raise TokenError("name: is no printable text; say what the token is for, such as 'deployments'")
    if text_of_name.startswith(SESSION_NAME) and not is_session:
        raise TokenError(f"name: {SESSION_NAME!r} begins the names of signed-in browsers; choose another")
    return text_of_name


def _checked_rights(rights: Collection[str]) -> list[str]:
    unknown = [right for right in rights if right not in RIGHTS]
    if unknown or not rights:
        said = f"{ascii(unknown[0])[:40]} is none" if unknown else "none given"
        raise TokenError(f"rights: {said}; give one or more of {', '.join(RIGHTS)}")
    return [right for right in RIGHTS if right in rights]


def _checked_end(connection: Connection, expires: datetime | timedelta | None) -> dict[str, Any]:
    if isinstance(expires, timedelta):
        if not timedelta(0) < expires <= _LONGEST:
            raise TokenError("expires: is not within the next 100 years; name a nearer time")
        return {"expires_at": None, "expires_seconds": expires.total_seconds()}
    if expires is not None:
        now: datetime = connection.execute(text("select clock_timestamp()")).scalar_one()
        if expires.tzinfo is None or not now < expires <= now + _LONGEST:
            raise TokenError("expires_at: is not within the next 100 years; name a time to come, with its time zone")
    return {"expires_at": expires, "expires_seconds": None}


def _token(row: Any) -> Token:
    return Token(
        id=TokenId.of(row.id),
        name=row.name,
        tenant=row.tenant,
        rights=tuple(row.rights),
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
