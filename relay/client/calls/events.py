"""Calls about events: record, read, explain, and what became of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.control.attempts import Attempt
from outbox.control.dead_letters import DeadDelivery
from outbox.control.deliveries import ListedDelivery
from outbox.control.events import EventDetails, ListedEvent
from outbox.recording.record import Event
from relay.client.calls.making import get_one, get_page, not_none, send

if TYPE_CHECKING:
    from outbox.control.explain import ExplainedEvent
    from outbox.control.pages import Page
    from outbox.control.track import EventTrack
    from relay.client.call import Call

__all__ = [
    "explain_recorded",
    "explain_unrecorded",
    "get_event",
    "get_event_attempts",
    "get_event_dead_letters",
    "get_event_track",
    "get_events",
    "get_outstanding",
    "record_event",
]


def record_event(type: str, data: Any, *, once: str, **more: Any) -> Call[Event]:  # noqa: A002
    """Record an event outside of your transaction, one for each `once`; more: key, tenant, available_at, priority,
    metadata."""
    return send(Event, "POST", "/events", body={"type": type, "data": data, **not_none(**more)}, once=once)


def get_events(**filters: Any) -> Call[Page[ListedEvent]]:
    """List events; filters: since, until, type, tenant, key, text, state, after, limit."""
    return get_page(ListedEvent, "/events", **filters)


def get_event(event_id: object) -> Call[EventDetails]:
    """Show one event."""
    return get_one(EventDetails, "/events/{}", event_id)


def explain_recorded(event_id: object, **filters: Any) -> Call[ExplainedEvent]:
    """Say for each subscription whether it gets this event, and why; filters: subscription, after, limit."""
    from outbox.control.explain import ExplainedEvent

    return get_one(ExplainedEvent, "/events/{}/explanation", event_id, **filters)


def get_event_track(event_id: object, **filters: Any) -> Call[EventTrack]:
    """Tell the track of an event, and who gets it; filters: subscription, tenant (who asks), after, limit."""
    from outbox.control.track import EventTrack

    return get_one(EventTrack, "/events/{}/track", event_id, **filters)


def explain_unrecorded(type: str, data: Any, **more: Any) -> Call[ExplainedEvent]:  # noqa: A002
    """The same for a draft; more: key, tenant, metadata, subscription, limit."""
    from outbox.control.explain import ExplainedEvent

    return send(ExplainedEvent, "POST", "/events/explain", body={"type": type, "data": data, **not_none(**more)})


def get_outstanding(event_id: object, after: str | None = None) -> Call[Page[ListedDelivery]]:
    """List what is still to deliver of an event."""
    return get_page(ListedDelivery, "/events/{}/deliveries", event_id, after=after)


def get_event_attempts(event_id: object, after: str | None = None) -> Call[Page[Attempt]]:
    """List the attempts of an event's deliveries."""
    return get_page(Attempt, "/events/{}/attempts", event_id, after=after)


def get_event_dead_letters(event_id: object, after: str | None = None) -> Call[Page[DeadDelivery]]:
    """List the dead letters of an event."""
    return get_page(DeadDelivery, "/events/{}/dead-letters", event_id, after=after)
