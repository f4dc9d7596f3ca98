"""The types of events: what applications declare of each, what was seen, an example, and the parts of its data."""

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from outbox.control.known_types import known_types, show_type, unsubscribed_types
from relay.operations.status.unmatched_events import UnmatchedType
from relay.web.pages.kept_status import kept_status
from relay.web.pages.points import points_of, window_named
from relay.web.pages.rendering import visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visit, Visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
_A_PAGE = 200


@router.get("/types")
def types(visit: Visiting, request: Request) -> Response:
    """List the types that are declared, those of the newest events, and of what was sent in 30 days."""
    after = request.query_params.get("after") or None
    with visit.transaction() as connection:
        found = known_types(connection, visit.tenant, after=after, limit=_A_PAGE)
        nobody = _nobody(visit, connection, [one.type for one in found])
    return visit_page(visit, "event_types.html", found=found, filters={"after": after or ""}, nobody=nobody)


def _nobody(visit: Visit, connection: Connection, types: Sequence[str]) -> dict[str, str]:
    """Return the types that nobody asks for, each with what more is known: of which tenant, and what it may have meant.

    The operator is told of a type, too, to which only other tenants subscribe.
    """
    given = [one for one in types if not one.startswith("relay.")]
    said = dict.fromkeys(unsubscribed_types(connection, visit.tenant, given), "")
    if visit.tenant is None:
        found = kept_status(visit.request, connection, None).unmatched.unsubscribed
        said |= {one.type: _more(one) for one in found if one.type in given}
    return said


def _more(one: UnmatchedType) -> str:
    whose = f" of {one.tenant}" if one.tenant else ""
    meant = f"; did you mean {one.like}?" if one.like else ""
    number = "1 event" if one.count == 1 else f"{one.count:,} events"
    return f"{number}{whose} went to nobody{meant}"


@router.get("/types/{name}")
def type_(visit: Visiting, request: Request, name: str) -> Response:
    """Show one type: what is declared, how its deliveries go, examples, and the parts of its data."""
    window = window_named(request.query_params.get("window", ""))
    with visit.transaction() as connection:
        found = show_type(connection, visit.tenant, name)
        points = points_of(connection, visit.visitor.whose, window, of_type=name)
        nobody = _nobody(visit, connection, [name])
    return visit_page(visit, "event_type.html", found=found, points=points, window=window, nobody=nobody)
