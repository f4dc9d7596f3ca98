"""Events that were recorded, and what became of each. How to call these is said in outbox.deliveries.

An event that record() keeps in a session is written when that commits; only then is it seen here.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Unpack
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from outbox.control import events as _events
from outbox.control.asking import EventsWhere, Tenant, connection_of, listed, whose
from outbox.control.events import EventDetails, EventState, ListedEvent
from outbox.control.filters import Filters
from outbox.control.pages import Page
from outbox.control.payloads import EventPayload, payloads_of
from outbox.control.track import EventTrack, TrackedDelivery, track_event
from outbox.control.waits import Waits
from outbox.ids import EventId

__all__ = [
    "EventDetails",
    "EventPayload",
    "EventState",
    "EventTrack",
    "ListedEvent",
    "Page",
    "TrackedDelivery",
    "Waits",
    "explain",
    "get",
    "list",
    "payloads",
]


def list(  # noqa: A001 - the verb of the interface
    connection: Session | Connection,
    state: EventState | None = None,
    *,
    tenant: Tenant = "",
    after: str | None = None,
    **where: Unpack[EventsWhere],
) -> Page[ListedEvent]:
    """Return the newest events, each with its state and how many of its subscriptions are in which.

    Args:
        connection: a Session or Connection.
        state: pending, under_way, delivered, partly_delivered, dead, unmatched, cancelled; None is all.
        tenant: whose.
        after: the cursor of the page before.
        where: since and until (about when it was recorded), type, key, text, limit.

    Raises:
        FilterError: a filter was refused.
    """
    return _events.list_events(connection_of(connection), whose(tenant), Filters(**where), state, after=after)


def get(connection: Session | Connection, event_id: str | UUID, *, tenant: Tenant = "") -> EventDetails:
    """Return one event with its payload, and the first pages of its deliveries, attempts and dead letters.

    Raises NotFoundError when it is none of this tenant's, was never recorded, or is past its retention.
    """
    return _events.show_event(connection_of(connection), whose(tenant), EventId.of(event_id, "event_id"))


def payloads(
    connection: Session | Connection, event_ids: str | UUID | Sequence[str | UUID], *, tenant: Tenant = ""
) -> builtins.list[EventPayload]:
    """Return the payloads of these events in one statement, in no order.

    What is another tenant's or past its retention is left out. Raises NotFoundError for what is no id of an event.
    """
    ids = [EventId.of(one, "event_ids") for one in listed(event_ids, "event_ids")]
    return payloads_of(connection_of(connection), whose(tenant), ids)


def explain(
    connection: Session | Connection,
    event_id: str | UUID,
    *,
    tenant: Tenant = "",
    subscription: str | UUID | None = None,
    after: str | None = None,
    limit: int = 100,
) -> EventTrack:
    """Return the track of one event: recorded, resolved, each attempt, what is next, and why it waits.

    `subscriptions` tells of each subscription, as it is now, whether it gets such an event, and why.

    Args:
        connection: a Session or Connection.
        event_id: `evt_…`.
        tenant: whose.
        subscription: only this one.
        after: the cursor of the page of subscriptions before.
        limit: how many subscriptions.

    Raises:
        NotFoundError: no such event of this tenant, or past its retention; no such subscription.
    """
    return track_event(
        connection_of(connection),
        whose(tenant),
        EventId.of(event_id, "event_id"),
        subscription=subscription,
        after=after,
        limit=limit,
    )
