"""The types of events: what applications declare of each, what was seen, an example, and the parts of its data."""

from fastapi import APIRouter, Request, Response

from outbox.control.known_types import known_types, show_type, unsubscribed_types
from relay.web.pages.points import points_of, window_named
from relay.web.pages.rendering import visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
_A_PAGE = 200


@router.get("/types")
def types(visit: Visiting, request: Request) -> Response:
    """List the types that are declared, those of the newest events, and of what was sent in 30 days."""
    after = request.query_params.get("after") or None
    with visit.transaction() as connection:
        found = known_types(connection, visit.tenant, after=after, limit=_A_PAGE)
        nobody = unsubscribed_types(connection, visit.tenant, [one.type for one in found])
    return visit_page(visit, "event_types.html", found=found, filters={"after": after or ""}, nobody=nobody)


@router.get("/types/{name}")
def type_(visit: Visiting, request: Request, name: str) -> Response:
    """Show one type: what is declared, how its deliveries go, examples, and the parts of its data."""
    window = window_named(request.query_params.get("window", ""))
    with visit.transaction() as connection:
        found = show_type(connection, visit.tenant, name)
        points = points_of(connection, visit.visitor.whose, window, of_type=name)
        nobody = unsubscribed_types(connection, visit.tenant, [name])
    return visit_page(visit, "event_type.html", found=found, points=points, window=window, nobody=nobody)
