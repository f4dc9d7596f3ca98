"""Links into the portal by HTTP: made for a tenant's own customers, listed, and ended."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, create_model

from outbox.control import portal_links as operations
from outbox.control.filters import Filters
from outbox.control.portal_links import DEFAULT_EXPIRES, PortalLink, PortalRight
from outbox.errors import ArgumentError
from relay.operations.tokens import RIGHTS, Right, TokenError
from relay.web.access import Principal
from relay.web.answers import answer, linked
from relay.web.api.fields import PageQuery, TenantName
from relay.web.bodies import Body, ExactRoute
from relay.web.database import Administering
from relay.web.idempotency import Asked
from relay.web.models import listing, model_of

__all__ = ["router"]

router = APIRouter(tags=["portal"], route_class=ExactRoute)

_HELD: Mapping[PortalRight, frozenset[Right]] = {
    "read": frozenset(("read",)),
    "manage": frozenset(("read", "write", "operate")),
}
"""The rights of a token that the visitor of a link has."""

_Link = model_of(PortalLink)
_NewLink = create_model("NewPortalLink", __base__=_Link, url=(str, Field(description="In this answer only.")))


class PortalLinkQuery(PageQuery):
    """A page of links."""

    tenant: TenantName | None = None
    ended: bool = Field(default=False, description="Also those that ended within the last day, or were revoked.")


class OfTenant(Body):
    tenant: TenantName | None = Field(default=None, description="Whose; by default that of the token.")


class MakePortalLink(OfTenant):
    rights: PortalRight = "read"
    expires_seconds: int = Field(
        default=int(DEFAULT_EXPIRES.total_seconds()), ge=1, le=604_800, description="How long it may be opened."
    )
    person: str | None = Field(default=None, max_length=200, description="Who opens it, for the audit.")
    url: str | None = Field(
        default=None, max_length=8000, description="Where the portal is; by default portal_url of the configuration."
    )


class RevokedLinks(BaseModel):
    """How many links and sessions ended."""

    revoked: int


def _whose(principal: Principal, given: str | None) -> str:
    whose = principal.tenant if given is None else given
    if whose is None:
        raise ArgumentError("tenant: is missing; a link belongs to one tenant, '' where there are none")
    if principal.tenant not in (None, whose):
        raise ArgumentError(f"tenant: is another than that of your token, {principal.tenant!r}; leave it out")
    return whose


def _require_rights(principal: Principal, given: PortalRight) -> None:
    """Raise TokenError where a link gives more than the token has that makes it."""
    lacking = [right for right in RIGHTS if right in _HELD[given] and right not in principal.rights]
    if lacking:
        raise TokenError(f"rights: this token has no right {', '.join(lacking)} itself, and a link to {given} gives it")


@router.get("/portal-links", response_model=listing(PortalLink))
def list_portal_links(
    call: Administering, request: Request, response: Response, query: Annotated[PortalLinkQuery, Query()]
) -> Any:
    """List links and the sessions that they began, the newest first. Never their text: only its hash is kept."""
    filters = Filters(tenant=query.tenant, limit=query.limit)
    page = operations.list_portal_links(call.connection, call.tenant, filters, ended=query.ended, after=query.after)
    return linked(request, response, page)


@router.post("/portal-links", status_code=201, response_model=_NewLink)
def make_portal_link(call: Administering, request: Request, once: Asked, body: MakePortalLink) -> Response:
    """Make a link, which opens once; its address is in this answer only.

    It gives no right that your token has not: `manage` wants read, write and operate. Link and session end with your
    token.
    """
    _require_rights(call.principal, body.rights)
    base = body.url or request.app.state.config.portal_url
    if not base:
        raise ArgumentError("url: is missing; give https://…/portal, or set portal_url in the configuration")

    def make() -> Response:
        made = operations.make_portal_link(
            call.connection, _whose(call.principal, body.tenant), base, rights=body.rights,
            expires=timedelta(seconds=body.expires_seconds), person=body.person, maker=call.principal.token_id,
        )  # fmt: skip
        shown = {name: getattr(made.link, name) for name in _Link.model_fields}
        return answer(_NewLink, shown | {"url": made.url}, 201)

    return once.run(call, make)


@router.delete("/portal-links/{link_id}", response_model=_Link)
def revoke_portal_link(call: Administering, link_id: str) -> Any:
    """End a link and the session that it began, at once."""
    return operations.revoke_portal_link(call.connection, call.tenant, link_id)


@router.post("/portal-links/revoke")
def revoke_portal_links(call: Administering, body: OfTenant) -> RevokedLinks:
    """End every link of a tenant and every session that one began, at once."""
    return RevokedLinks(revoked=operations.revoke_portal_links(call.connection, _whose(call.principal, body.tenant)))
