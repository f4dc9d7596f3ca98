"""Events by HTTP: what was recorded and what became of it; and recording, for applications without the database."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import Field

import outbox
from outbox.control.attempts import Attempt, attempts_of_event
from outbox.control.dead_letters import DeadDelivery, dead_of_event
from outbox.control.deliveries import ListedDelivery, outstanding_of_event
from outbox.control.events import EventDetails, EventState, ListedEvent, list_events, show_event
from outbox.control.explain import Draft, ExplainedEvent, explain_draft, explain_event
from outbox.control.pages import Page
from outbox.control.track import EventTrack, track_event
from outbox.recording.record import Event
from relay.web.answers import linked, linked_below
from relay.web.api.fields import EventFilter, EventMetadata, PageQuery, SubscriptionName, TenantName, tenant_of
from relay.web.bodies import Body, ExactRoute, Instant, WrittenData, data_of
from relay.web.database import Reading, Writing
from relay.web.models import listing, model_of

__all__ = ["router"]

router = APIRouter(prefix="/events", tags=["events"], route_class=ExactRoute)

_Cursor = Annotated[str | None, Query(max_length=2000)]


class RecordEvent(Body):
    type: str = Field(max_length=128, pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$")
    data: Any = Field(description="Any JSON; it is stored and sent as it is written.")
    key: str | None = Field(default=None, max_length=1024)
    tenant: TenantName | None = None
    available_at: Instant | None = Field(default=None, description="The earliest time of delivery.")
    priority: int = Field(default=0, ge=0, le=3)
    metadata: EventMetadata | None = None


class ExplainDraft(Body):
    type: str = Field(max_length=128)
    data: Any
    key: str | None = Field(default=None, max_length=1024)
    tenant: TenantName | None = None
    metadata: EventMetadata | None = None
    subscription: SubscriptionName | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class ExplainQuery(PageQuery):
    """A page of the subscriptions that an event is explained for."""

    subscription: SubscriptionName | None = None


class EventsQuery(EventFilter):
    """A page of events, all or those of one state."""

    state: EventState | None = Field(default=None, description="Only these; without it all.")


class TrackQuery(ExplainQuery):
    """A page of the subscriptions of an event's track."""

    tenant: TenantName | None = Field(default=None, description="Asked as this tenant; for tokens of every tenant.")


@router.post("", status_code=201, response_model=model_of(Event))
def record_event(
    call: Writing,
    body: RecordEvent,
    written: WrittenData,
    idempotency_key: Annotated[
        str, Header(min_length=1, max_length=256, description="One event for each tenant and key.")
    ],
) -> Any:
    """Record an event, for applications without the database. It is committed on its own, outside of your transaction.

    So your own change and the event are not one: make your change first, then send this until it is answered, with the
    same Idempotency-Key. The same tenant and key stand for one event for seven days. An application that reaches the
    database calls outbox.record() in its own transaction instead.
    """
    return outbox.record(
        call.connection,
        body.type,
        outbox.RawJSON(data_of(body, written)),
        key=body.key,
        tenant=tenant_of(call.principal, body.tenant),
        available_at=body.available_at,
        idempotency_key=idempotency_key,
        priority=body.priority,
        metadata=body.metadata,
    )


@router.get("", response_model=listing(ListedEvent))
def get_events(call: Reading, request: Request, response: Response, query: Annotated[EventsQuery, Query()]) -> Any:
    """List events, newest first, each with what became of it."""
    page = list_events(call.connection, call.tenant, query.filters(), query.state, after=query.after)
    return linked(request, response, page)


@router.post("/explain", response_model=model_of(ExplainedEvent))
def explain_unrecorded(call: Reading, body: ExplainDraft, written: WrittenData) -> Any:
    """Say for each subscription whether it would get a draft of an event, and why; the first `limit` of them."""
    draft = Draft(
        type=body.type, data=data_of(body, written), key=body.key, metadata=body.metadata,
        tenant=tenant_of(call.principal, body.tenant),
    )  # fmt: skip
    found = explain_draft(call.connection, call.tenant, draft, subscription=body.subscription, limit=body.limit)
    return replace(found, subscriptions=Page(found.subscriptions.items))


@router.get("/{event_id}", response_model=model_of(EventDetails))
def get_event(call: Reading, event_id: str, request: Request) -> Any:
    """Show one event: who matched, what is outstanding, each attempt, its payload as JSON text."""
    found = show_event(call.connection, call.tenant, event_id)
    return replace(
        found,
        deliveries=linked_below(request, found.deliveries, "deliveries"),
        attempts=linked_below(request, found.attempts, "attempts"),
        dead_letters=linked_below(request, found.dead_letters, "dead-letters"),
    )


@router.get("/{event_id}/explanation", response_model=model_of(ExplainedEvent))
def explain_recorded(
    call: Reading, event_id: str, request: Request, response: Response, query: Annotated[ExplainQuery, Query()]
) -> Any:
    """Say for each subscription, as it is now, whether it gets this event, and why."""
    found = explain_event(
        call.connection, call.tenant, event_id, subscription=query.subscription, after=query.after, limit=query.limit
    )
    return replace(found, subscriptions=linked(request, response, found.subscriptions))


@router.get("/{event_id}/track", response_model=model_of(EventTrack))
def get_event_track(
    call: Reading, event_id: str, request: Request, response: Response, query: Annotated[TrackQuery, Query()]
) -> Any:
    """Tell the track of an event: recorded, resolved, each attempt, what is next and why it waits, and who gets it."""
    asking = call.tenant if query.tenant is None else tenant_of(call.principal, query.tenant)
    found = track_event(
        call.connection, asking, event_id, subscription=query.subscription, after=query.after, limit=query.limit
    )
    return replace(found, subscriptions=linked(request, response, found.subscriptions))


@router.get("/{event_id}/deliveries", response_model=listing(ListedDelivery))
def get_outstanding(call: Reading, event_id: str, request: Request, response: Response, after: _Cursor = None) -> Any:
    """List what is still to deliver of an event, a thousand a page."""
    return linked(request, response, outstanding_of_event(call.connection, call.tenant, event_id, after=after))


@router.get("/{event_id}/attempts", response_model=listing(Attempt))
def get_event_attempts(
    call: Reading, event_id: str, request: Request, response: Response, after: _Cursor = None
) -> Any:
    """List the attempts of an event's deliveries, oldest first, a thousand a page."""
    return linked(request, response, attempts_of_event(call.connection, call.tenant, event_id, after=after))


@router.get("/{event_id}/dead-letters", response_model=listing(DeadDelivery))
def get_event_dead_letters(
    call: Reading, event_id: str, request: Request, response: Response, after: _Cursor = None
) -> Any:
    """List the dead letters of an event, oldest first, a thousand a page."""
    return linked(request, response, dead_of_event(call.connection, call.tenant, event_id, after=after))
