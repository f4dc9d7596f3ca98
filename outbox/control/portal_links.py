"""Links into the portal of a tenant's own customers, and the sessions that they begin.

A link is random text of which a hash is kept, as a token is: there is no signing key to keep or to exchange, and it can
be revoked. It is opened once and within its time; what it opens is one session, in the same row.

Where a token made the link, its text and that of its session have the token's id at their end. The hash covers it, so
that nobody can change it. Both stop when that token does.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.filters import Filters
from outbox.control.pages import Key, Listing, Page
from outbox.control.portal_arguments import (
    PORTAL_RIGHTS,
    PortalRight,
    check_expires,
    check_person,
    check_rights,
    portal_base,
)
from outbox.control.tenancy import own
from outbox.errors import NotFoundError
from outbox.ids import PortalLinkId, TokenId, text_id
from outbox.secret import NeverPickled, hides_secrets
from outbox.subscriptions.checks import check_tenant

__all__ = [
    "DEFAULT_EXPIRES",
    "PORTAL_RIGHTS",
    "SESSION_SECONDS",
    "NewPortalLink",
    "PortalLink",
    "PortalRight",
    "begin_portal_session",
    "end_portal_session",
    "list_portal_links",
    "make_portal_link",
    "open_portal_link",
    "portal_base",
    "portal_link_of_session",
    "revoke_portal_link",
    "revoke_portal_links",
]

SESSION_SECONDS = 8 * 3600
"""How long the session lasts that a link begins: a working day."""
DEFAULT_EXPIRES = timedelta(hours=1)
_LINK, _SESSION = "ptl_", "pts_"
_SECRET = re.compile(r"(?:ptl|pts)_[A-Za-z0-9_-]{43}(?P<maker>[0-7][0-9a-hjkmnp-tv-z]{25})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalLink:
    """A link as it is listed, with the session that it began. `person` is who opens it, as the application says."""

    id: PortalLinkId
    tenant: str
    rights: PortalRight
    person: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime
    opened_at: datetime | None
    session_expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewPortalLink(NeverPickled):
    """A link that was made, with its address, which is handed out this once."""

    link: PortalLink
    url: str

    def __repr__(self) -> str:
        return f"NewPortalLink(link={self.link!r}, url='***')"


_COLUMNS = "id, tenant, rights, person, created_by, created_at, expires_at, opened_at, session_expires_at, revoked_at"
# Of the token that made the link; null where none did, or where it has no end, and `least` passes over a null.
_MAKERS_END = "(select expires_at from outbox.tokens where id = cast(:maker as uuid))"
_MAKER_LIVES = """(cast(:maker as uuid) is null or exists (
    select from outbox.tokens t where t.id = cast(:maker as uuid) and t.revoked_at is null
    and (t.expires_at is null or t.expires_at > clock_timestamp())))"""
_INSERT = text(f"""
insert into outbox.portal_links (tenant, rights, person, hash, expires_at)
values (:tenant, :rights, :person, :hash, least(clock_timestamp() + make_interval(secs => :seconds), {_MAKERS_END}))
returning {_COLUMNS}
""")  # noqa: S608 - constants
# Whoever makes a link takes away a few that ended a day ago; two at once take away different ones.
_FORGET = text("""
delete from outbox.portal_links where id = any(array(
    select id from outbox.portal_links
    where coalesce(session_expires_at, expires_at) < clock_timestamp() - interval '1 day'
    order by id limit 20 for update skip locked))
""")


def make_portal_link(
    connection: Connection,
    tenant: str,
    base_url: str,
    *,
    rights: PortalRight = "read",
    expires: timedelta = DEFAULT_EXPIRES,
    person: str | None = None,
    maker: TokenId | None = None,
) -> NewPortalLink:
    """Make a link and return it with its address; how, is said in outbox.portal_url.

    With `maker`, the token that makes it, link and session end no later than that token, and when it is revoked.
    """
    base = portal_base(base_url)
    link, given = _make(connection, tenant, rights, expires, person, maker)
    return NewPortalLink(link=link, url=f"{base}/open?link={given}")


def begin_portal_session(
    connection: Connection, tenant: str, *, rights: PortalRight = "read", person: str | None = None
) -> str:
    """Begin a session for somebody whom the application has signed in, and return its secret; no link is handed out.

    Raises SubscriptionError and ArgumentError as `make_portal_link`.
    """
    _, given = _make(connection, tenant, rights, DEFAULT_EXPIRES, person, None)
    opened = open_portal_link(connection, given)
    assert opened is not None  # it was made just now
    return opened[1]


def _make(
    connection: Connection, tenant: str, rights: PortalRight, expires: timedelta, person: str | None,
    maker: TokenId | None,
) -> tuple[PortalLink, str]:  # fmt: skip
    """Make a link, and return it and its text."""
    values = {
        "tenant": check_tenant(tenant),
        "rights": check_rights(rights),
        "seconds": check_expires(expires).total_seconds(),
        "person": check_person(person),
        "maker": maker,
    }
    given = _new_secret(_LINK, maker)
    row = connection.execute(_INSERT, {**values, "hash": _hash(given)}).one()
    connection.execute(_FORGET)
    return _link(row), given


_OPEN = text(f"""
update outbox.portal_links
set opened_at = clock_timestamp(), session_hash = :session,
    session_expires_at = least(clock_timestamp() + make_interval(secs => :seconds), {_MAKERS_END})
where hash = :hash and opened_at is null and revoked_at is null and expires_at > clock_timestamp() and {_MAKER_LIVES}
returning {_COLUMNS}
""")  # noqa: S608 - constants


@hides_secrets
def open_portal_link(connection: Connection, given: str) -> tuple[PortalLink, str] | None:
    """Begin the session of a link, and return the link and the session's secret; None where it opens nothing.

    Of two who open it at once, one begins it. What is compared are hashes, by their index.
    """
    if not _has_form(given, _LINK):
        return None
    session = _new_secret(_SESSION, maker := _maker_of(given))
    values = {"hash": _hash(given), "session": _hash(session), "seconds": SESSION_SECONDS, "maker": maker}
    row = connection.execute(_OPEN, values).one_or_none()
    return None if row is None else (_link(row), session)


_OF_SESSION = text(f"""
select {_COLUMNS}, hash from outbox.portal_links
where session_hash = :hash and revoked_at is null and session_expires_at > clock_timestamp() and {_MAKER_LIVES}
""")  # noqa: S608 - constants


@hides_secrets
def portal_link_of_session(connection: Connection, given: str, *, begun_by: str | None = None) -> PortalLink | None:
    """Return the link whose session this is; None where it has ended, was revoked, or there never was one.

    With `begun_by`, the text of a link: only where it is that one.
    """
    if not _has_form(given, _SESSION):
        return None
    row = connection.execute(_OF_SESSION, {"hash": _hash(given), "maker": _maker_of(given)}).one_or_none()
    if row is None or (begun_by is not None and bytes(row.hash) != _hash(begun_by)):
        return None
    return _link(row)


_REVOKE = "update outbox.portal_links set revoked_at = clock_timestamp() where revoked_at is null and"
_LIVES = "coalesce(session_expires_at, expires_at) > clock_timestamp()"


def end_portal_session(connection: Connection, link: PortalLink) -> None:
    """End a session at once, on every process."""
    connection.execute(text(f"{_REVOKE} id = :id"), {"id": link.id})


def revoke_portal_links(connection: Connection, tenant: str) -> int:
    """End every link of a tenant and every session that one began, at once; return how many that were."""
    statement = text(f"{_REVOKE} tenant = :tenant and {_LIVES}")
    return connection.execute(statement, {"tenant": check_tenant(tenant)}).rowcount


def revoke_portal_link(connection: Connection, tenant: str | None, link_id: UUID | str) -> PortalLink:
    """End one link and its session at once, and return it; revoking twice keeps the first time.

    Raises NotFoundError where there is none of this tenant's.
    """
    uuid = PortalLinkId.of(link_id, "link")
    connection.execute(text(f"{_REVOKE} id = :id and {own('tenant')}"), {"id": uuid, "asking": tenant})
    statement = text(f"select {_COLUMNS} from outbox.portal_links where id = :id and {own('tenant')}")  # noqa: S608
    row = connection.execute(statement, {"id": uuid, "asking": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"link: no {uuid}; never made, or it ended more than a day ago")
    return _link(row)


_LISTING = Listing(
    name="portal_links",
    columns={"tenant": "tenant"},
    own=own("tenant"),
    keys=(Key("id", "id", "uuid", descending=True),),
)


def list_portal_links(
    connection: Connection, tenant: str | None, filters: Filters, *, ended: bool = False, after: str | None = None
) -> Page[PortalLink]:
    """Return links, the newest first; those that ended or were revoked only with `ended`."""
    where, parameters = _LISTING.where(tenant, filters, after)
    live = "true" if ended else f"revoked_at is null and {_LIVES}"
    statement = f"select {_COLUMNS} from outbox.portal_links where {where} and {live} {_LISTING.order_by} limit :limit"  # noqa: S608
    return _LISTING.page(connection.execute(text(statement), parameters).all(), filters.limit, _link)


def _new_secret(prefix: str, maker: UUID | None) -> str:
    return prefix + secrets.token_urlsafe(32) + ("" if maker is None else text_id("tok", maker).removeprefix("tok_"))


def _maker_of(given: str) -> TokenId | None:
    """Return the token that made a link, by the link's or the session's text, which has the form of one."""
    found = _SECRET.fullmatch(given)
    return None if found is None or found["maker"] is None else TokenId.of(f"tok_{found['maker']}")


def _has_form(given: str, prefix: str) -> bool:
    return given.startswith(prefix) and _SECRET.fullmatch(given) is not None


def _hash(given: str) -> bytes:
    return hashlib.sha256(given.encode()).digest()


def _link(row: Any) -> PortalLink:
    fields = {name: getattr(row, name) for name in _COLUMNS.split(", ")}
    made = PortalLink(**fields)
    return replace(made, id=PortalLinkId.of(row.id))
