"""Dead letters by HTTP: what was given up, with the reason. They leave by replay or purge only."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from outbox.control import dead_letters as operations
from outbox.control.dead_letters import DeadLetterDetails, ListedDeadLetter
from relay.web.answers import answer, linked
from relay.web.api.deliveries import ReplayBody, Replayed, replayed
from relay.web.api.fields import Chosen, DeliveryFilter
from relay.web.bodies import ExactRoute
from relay.web.database import Operating, Reading
from relay.web.idempotency import Asked
from relay.web.models import listing, model_of

__all__ = ["router"]

router = APIRouter(prefix="/dead-letters", tags=["dead letters"], route_class=ExactRoute)


class Purged(BaseModel):
    """How many dead letters are deleted, or in a dry run would be."""

    count: int


@router.get("", response_model=listing(ListedDeadLetter))
def get_dead_letters(
    call: Reading, request: Request, response: Response, query: Annotated[DeliveryFilter, Query()]
) -> Any:
    """List dead letters, newest first; since and until are about when they died."""
    page = operations.list_dead_letters(call.connection, call.tenant, query.filters(), after=query.after)
    return linked(request, response, page)


@router.post("/redrive", status_code=201, response_model=Replayed)
def redrive_dead_letters(call: Operating, once: Asked, body: Chosen) -> Response:
    """Deliver dead letters again, by ids or by filter: the same as a replay of them."""
    wanted = ReplayBody(**{name: getattr(body, name) for name in body.model_fields_set})
    return once.run(call, lambda: answer(Replayed, replayed(call, wanted), 201))


@router.post("/purge", response_model=Purged)
def purge_dead_letters(call: Operating, body: Chosen) -> Any:
    """Delete dead letters for good, by ids or by filter, the oldest first."""
    found, filters = body.find(call, operations.find_by_id, operations.find)
    if body.dry_run:
        return {"count": len(found)}
    return {"count": operations.purge(call.connection, call.tenant, found, filters)}


@router.get("/{delivery_id}", response_model=model_of(DeadLetterDetails))
def get_dead_letter(call: Reading, delivery_id: str, request: Request) -> Any:
    """Show one dead letter with its attempts and its payload as JSON text."""
    found = operations.show_dead_letter(call.connection, call.tenant, delivery_id)
    if found.attempts_made.next is None:
        return found
    more = str(request.url_for("get_delivery_attempts", delivery_id=str(found.id)).path)
    return replace(found, attempts_made=replace(found.attempts_made, next=f"{more}?after={found.attempts_made.next}"))


@router.post("/{delivery_id}/redrive", status_code=201, response_model=Replayed)
def redrive_dead_letter(call: Operating, once: Asked, delivery_id: str) -> Response:
    """Deliver one dead letter again, as a new delivery."""

    def make() -> Response:
        (found,) = operations.find_by_id(call.connection, call.tenant, [delivery_id])
        return answer(Replayed, replayed(call, ReplayBody(ids=[str(found)])), 201)

    return once.run(call, make)


@router.delete("/{delivery_id}", response_model=Purged)
def purge_dead_letter(call: Operating, delivery_id: str) -> Any:
    """Delete one dead letter for good."""
    found = operations.find_by_id(call.connection, call.tenant, [delivery_id])
    return {"count": operations.purge(call.connection, call.tenant, found)}
