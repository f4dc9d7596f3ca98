"""The types of events that there were, each with its newest event as an example and the parts of its payload."""

from fastapi import APIRouter, Request, Response

from outbox.control.event_types import example_of_type, seen_types
from outbox.errors import NotFoundError
from relay.web.pages.points import points_of, window_named
from relay.web.pages.rendering import PageRoute, visit_page
from relay.web.pages.visits import Visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)


@router.get("/types")
def types(visit: Visiting) -> Response:
    """List the types of the newest events, and of what was sent in 30 days."""
    with visit.transaction() as connection:
        found = seen_types(connection, visit.tenant)
    return visit_page(visit, "event_types.html", found=found)


@router.get("/types/{name}")
def type_(visit: Visiting, request: Request, name: str) -> Response:
    """Show one type: how its deliveries go, an example, and the parts of its payload."""
    window = window_named(request.query_params.get("window", ""))
    with visit.transaction() as connection:
        seen = next((one for one in seen_types(connection, visit.tenant) if one.type == name), None)
        if seen is None:
            raise NotFoundError(
                "type: no event of this type is among the newest, and nothing of it was sent in 30 days"
            )
        example = example_of_type(connection, visit.tenant, name)
        points = points_of(connection, visit.visitor.whose, window, of_type=name)
    return visit_page(visit, "event_type.html", seen=seen, example=example, points=points, window=window)
