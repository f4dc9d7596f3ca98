"""Event types by HTTP: what is declared of each, and what was seen."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from outbox.control.known_types import KnownType, KnownTypeDetails, known_types, show_type
from relay.web.answers import linked
from relay.web.api.fields import PageQuery
from relay.web.bodies import ExactRoute
from relay.web.database import Reading
from relay.web.models import listing, model_of

__all__ = ["router"]

router = APIRouter(prefix="/event-types", tags=["event types"], route_class=ExactRoute)


@router.get("", response_model=listing(KnownType))
def get_event_types(call: Reading, request: Request, response: Response, query: Annotated[PageQuery, Query()]) -> Any:
    """List event types by name: those that applications declared, and those of the token's events lately."""
    found = known_types(call.connection, call.tenant, after=query.after, limit=query.limit)
    return linked(request, response, found)


@router.get("/{name}", response_model=model_of(KnownTypeDetails))
def get_event_type(call: Reading, name: str) -> Any:
    """Show one event type: its JSON Schema, examples as JSON text, and the parts of its data."""
    return show_type(call.connection, call.tenant, name)
