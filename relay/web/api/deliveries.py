"""Deliveries by HTTP: one event for one subscription; retry and cancel by hand, and replay."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from outbox.control import by_hand
from outbox.control.attempts import Attempt, attempts_of_delivery
from outbox.control.deliveries import DeliveryDetails, DeliveryState, ListedDelivery, list_deliveries, show_delivery
from outbox.control.replay import replay as replays
from outbox.ids import DeliveryId
from relay.web.answers import answer, linked, linked_below
from relay.web.api.fields import AttemptFilter, Chosen, SubscriptionName
from relay.web.bodies import ExactRoute
from relay.web.database import Call, Operating, Reading
from relay.web.idempotency import Asked
from relay.web.models import DeliveryText, SubscriptionText, listing, model_of
from relay.web.problems import Problem

__all__ = ["Replayed", "replayed", "router"]

router = APIRouter(tags=["deliveries"], route_class=ExactRoute)


class _Document(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Retried(_Document):
    """What is due now, or in a dry run would be; `not_sendable` are subscriptions on which it waits all the same."""

    count: int
    deliveries: list[DeliveryText]
    not_sendable: list[SubscriptionText] = []


class Cancelled(_Document):
    """What is cancelled, or in a dry run would be; requests for `leased` ones may still arrive."""

    count: int
    deliveries: list[DeliveryText]
    leased: list[DeliveryText] = []


class Replayed(_Document):
    """What is put back, or in a dry run would be; `resolve_again` are events that go back to pending.

    By filter, `matching` tells how many passed it before, `limit` or not; by ids it is null.
    """

    count: int
    matching: model_of(replays.Matching) | None  # type: ignore[valid-type]
    deliveries: list[DeliveryText]
    subscriptions: list[SubscriptionText]
    resolve_again: int


class DeliveryQuery(AttemptFilter):
    """A page of deliveries."""

    state: DeliveryState | None = Field(default=None, description="Only these; without it all that is outstanding.")


class ReplayBody(Chosen):
    """What is delivered again: by ids of deliveries, dead letters or events, or by filter."""

    to: SubscriptionName | None = Field(default=None, description="To this subscription instead.")
    to_all: bool = Field(default=False, description="By ids: to every subscription that the event matches now.")
    state: Literal["dead", "delivered", "cancelled"] = Field(default="dead", description="By filter: which of them.")


@router.get("/deliveries", response_model=listing(ListedDelivery))
def get_deliveries(
    call: Reading, request: Request, response: Response, query: Annotated[DeliveryQuery, Query()]
) -> Any:
    """List what is still to deliver, the longest due first; of the delivered or cancelled the newest.

    outcome, status and text narrow what is delivered or cancelled, by its attempts.
    """
    page = list_deliveries(call.connection, call.tenant, query.filters(), query.state, after=query.after)
    return linked(request, response, page)


@router.get("/deliveries/{delivery_id}", response_model=model_of(DeliveryDetails))
def get_delivery(call: Reading, delivery_id: str, request: Request) -> Any:
    """Show one delivery with its attempts, wherever it is: outstanding, delivered, a dead letter, or a test."""
    found = show_delivery(call.connection, call.tenant, delivery_id)
    return replace(found, attempts_made=linked_below(request, found.attempts_made, "attempts"))


@router.get("/deliveries/{delivery_id}/attempts", response_model=listing(Attempt))
def get_delivery_attempts(
    call: Reading,
    delivery_id: str,
    request: Request,
    response: Response,
    after: Annotated[str | None, Query(max_length=2000)] = None,
) -> Any:
    """List the attempts of a delivery, oldest first, a thousand a page."""
    return linked(request, response, attempts_of_delivery(call.connection, call.tenant, delivery_id, after=after))


@router.post("/deliveries/retry", response_model=Retried)
def retry_deliveries(call: Operating, body: Chosen) -> Any:
    """Make due now what waits for a retry; its attempts stay as they are."""
    found, filters = body.find(call, by_hand.waiting_by_id, by_hand.waiting_by_filter)
    if body.dry_run:
        return {"count": len(found), "deliveries": found}
    return _retried(by_hand.retry_now(call.connection, call.tenant, found, filters))


@router.post("/deliveries/{delivery_id}/retry", response_model=Retried)
def retry_delivery(call: Operating, delivery_id: str) -> Any:
    """Make one delivery due now."""
    found = by_hand.waiting_by_id(call.connection, call.tenant, [delivery_id])
    return _retried(by_hand.retry_now(call.connection, call.tenant, found))


def _retried(done: by_hand.Retried) -> dict[str, Any]:
    return {"count": len(done.deliveries), "deliveries": done.deliveries, "not_sendable": done.not_sendable}


@router.post("/deliveries/cancel", response_model=Cancelled)
def cancel_deliveries(call: Operating, body: Chosen) -> Any:
    """Cancel for good what is outstanding. A request that is on its way may still arrive."""
    found, filters = body.find(call, by_hand.outstanding_by_id, by_hand.outstanding_by_filter)
    if body.dry_run:
        return {"count": len(found), "deliveries": found}
    return _cancelled(by_hand.cancel(call.connection, call.tenant, found, filters))


@router.post("/deliveries/{delivery_id}/cancel", response_model=Cancelled)
def cancel_delivery(call: Operating, delivery_id: str) -> Any:
    """Cancel one delivery for good."""
    found = by_hand.outstanding_by_id(call.connection, call.tenant, [delivery_id])
    return _cancelled(by_hand.cancel(call.connection, call.tenant, found))


def _cancelled(done: by_hand.Cancelled) -> dict[str, Any]:
    return {"count": len(done.deliveries), "deliveries": done.deliveries, "leased": done.leased}


@router.post("/replays", status_code=201, response_model=Replayed)
def replay_deliveries(call: Operating, once: Asked, body: ReplayBody) -> Response:
    """Deliver again: dead letters, deliveries or events by ids, or all that pass a filter. Each is a new delivery."""
    return once.run(call, lambda: answer(Replayed, replayed(call, body), 201))


def replayed(call: Call, body: ReplayBody) -> dict[str, Any]:
    """Do what a replay asks for, or say in a dry run what it would do."""
    if body.to_all and (body.to is not None or body.ids is None):
        raise Problem(422, "invalid", "to_all: goes with ids, and without to", mend="leave to_all out")
    filters = body.filter.filters() if body.filter else None
    matching = None
    if filters is None:
        found = [
            item
            for name in body.ids or ()
            for item in replays.candidates_by_id(call.connection, call.tenant, name, body.to, to_all=body.to_all)
        ]
    else:
        found = replays.candidates_by_filter(call.connection, call.tenant, filters, state=body.state, to=body.to)
        matching = replays.count_by_filter(call.connection, call.tenant, filters, state=body.state)
    resolve_again = sum(item.subscription_id is None for item in found)
    subscriptions = sorted({item.subscription_id for item in found if item.subscription_id})
    made: list[DeliveryId] = []
    if not body.dry_run:
        state = None if filters is None else body.state
        asked = replays.Asked(body.ids or (), filters, state, "all" if body.to_all else body.to)
        made = replays.replay(call.connection, call.tenant, found, asked)
    direct = len(found) - resolve_again if body.dry_run else len(made)
    return {
        "count": direct + resolve_again,
        "matching": matching,
        "deliveries": made,
        "subscriptions": subscriptions,
        "resolve_again": resolve_again,
    }
