"""The catalogue: the types of events that a tenant has had, and an example of each with its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from outbox.control.event_types import example_of_type, seen_types
from relay.web.portal.customers import Looking, PortalRefused
from relay.web.portal.endpoint_forms import covers
from relay.web.portal.rendering import PortalRoute, page

if TYPE_CHECKING:
    from relay.config.options import Config

__all__ = ["router"]

router = APIRouter(route_class=PortalRoute)


@router.get("/types")
def types(visit: Looking, request: Request) -> Response:
    """List the types that customers may subscribe to, of those that were seen."""
    config: Config = request.app.state.config
    assert visit.tenant is not None
    with visit.transaction() as connection:
        found = [one for one in seen_types(connection, visit.tenant) if covers(config.portal_types, one.type)]
    return page(visit, "portal_types.html", found=found)


@router.get("/types/{name}")
def type_(visit: Looking, request: Request, name: str) -> Response:
    """Show one type: its newest event as an example, and the parts of its payload."""
    config: Config = request.app.state.config
    assert visit.tenant is not None
    if not covers(config.portal_types, name):
        raise PortalRefused(404, "not_found")
    with visit.transaction() as connection:
        seen = next((one for one in seen_types(connection, visit.tenant) if one.type == name), None)
        if seen is None:
            raise PortalRefused(404, "not_found")
        example = example_of_type(connection, visit.tenant, name)
    return page(visit, "portal_type.html", seen=seen, example=example)
