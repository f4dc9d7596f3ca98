"""Calls about access: tokens, and links into the portal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.control.portal_links import NewPortalLink, PortalLink
from relay.client.calls.making import get_one, get_page, mapping, not_none, send
from relay.client.reading import read_as
from relay.client.results import OwnToken, RevokedLinks
from relay.operations.tokens import NewToken, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outbox.control.pages import Page
    from relay.client.call import Call

__all__ = [
    "get_own_token",
    "list_portal_links",
    "list_tokens",
    "make_portal_link",
    "make_token",
    "revoke_portal_link",
    "revoke_portal_links",
    "revoke_token",
]


def get_own_token() -> Call[OwnToken]:
    """Tell what the token of this call is and may do."""
    return get_one(OwnToken, "/token")


def list_tokens(**filters: Any) -> Call[Page[Token]]:
    """List tokens; filters: tenant, revoked, after, limit."""
    return get_page(Token, "/tokens", **filters)


def make_token(name: str, rights: Sequence[str], *, once: str | None = None, **more: Any) -> Call[NewToken]:
    """Make a token; more: tenant, and expires_at (RFC 3339) or expires_days."""
    body = {"name": name, "rights": list(rights), **more}
    made = send(object, "POST", "/tokens", body=body, once=once)
    return made.then(lambda found: NewToken(token=read_as(Token, found), text=mapping(found)["token"]))


def revoke_token(token_id: object) -> Call[Token]:
    """End a token at once."""
    return send(Token, "DELETE", "/tokens/{}", token_id)


def list_portal_links(**filters: Any) -> Call[Page[PortalLink]]:
    """List links into the portal; filters: tenant, ended, after, limit."""
    return get_page(PortalLink, "/portal-links", **filters)


def make_portal_link(*, once: str | None = None, **how: Any) -> Call[NewPortalLink]:
    """Make a link into the portal; how: tenant, rights, expires_seconds, person, url."""
    made = send(object, "POST", "/portal-links", body=not_none(**how), once=once)
    return made.then(lambda found: NewPortalLink(link=read_as(PortalLink, found), url=mapping(found)["url"]))


def revoke_portal_link(link_id: object) -> Call[PortalLink]:
    """End a link and its session at once."""
    return send(PortalLink, "DELETE", "/portal-links/{}", link_id)


def revoke_portal_links(tenant: str | None = None) -> Call[RevokedLinks]:
    """End every link and session of a tenant at once."""
    return send(RevokedLinks, "POST", "/portal-links/revoke", body=not_none(tenant=tenant))
