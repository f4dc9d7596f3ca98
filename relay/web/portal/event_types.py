"""The types of events that a tenant may get or has had: what is declared of each, and an example with its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from outbox.control.known_types import KnownType, known_types, show_type
from outbox.control.pages import Page
from outbox.errors import FilterError
from relay.web.pages.filters import PAGE_ROWS
from relay.web.portal.customers import Looking, PortalRefused
from relay.web.portal.endpoint_forms import allows
from relay.web.portal.rendering import PortalRoute, page

if TYPE_CHECKING:
    from relay.config.options import Config

__all__ = ["router"]

router = APIRouter(route_class=PortalRoute)


@router.get("/types")
def types(visit: Looking, request: Request) -> Response:
    """List the types that customers may subscribe to, of those that are declared or were seen, a page at a time."""
    config: Config = request.app.state.config
    assert visit.tenant is not None
    after = request.query_params.get("after", "")

    def shown(one: KnownType) -> bool:
        return allows(config.portal_types, one.type) and _is_shown(one)

    try:
        with visit.transaction() as connection:
            found = known_types(connection, visit.tenant, after=after or None, limit=PAGE_ROWS, shown=shown)
    except FilterError:  # a page of another list
        found = Page(())
    return page(visit, "portal_types.html", found=found, asked={"after": after})


@router.get("/types/{name}")
def type_(visit: Looking, request: Request, name: str) -> Response:
    """Show one type: what is declared of it, its newest event as an example, and the parts of its payload."""
    config: Config = request.app.state.config
    assert visit.tenant is not None
    if not allows(config.portal_types, name):
        raise PortalRefused(404, "not_found")
    with visit.transaction() as connection:
        found = show_type(connection, visit.tenant, name)
    if not _is_shown(found):
        raise PortalRefused(404, "not_found")
    return page(visit, "portal_type.html", found=found)


def _is_shown(one: KnownType) -> bool:
    """Tell whether a customer sees it: what is declared no more, only if there was something of it."""
    return one.retired_at is None or one.last_at is not None
