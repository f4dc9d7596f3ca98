"""Deliveries: one event for one subscription. Outstanding ones, and the record of those that are done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import Connection, text

from outbox._text import brief
from outbox.control.advice import advice_on
from outbox.control.attempts import PAGE_ROWS, Attempt, attempts_of_delivery
from outbox.control.filters import SEQ_OF_EVENT, FilterError, Filters
from outbox.control.findings import Finding
from outbox.control.history import walk_attempts
from outbox.control.outstanding import OUTSTANDING, OutstandingState, walk_outstanding
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import OWN_DEAD_LETTER, own
from outbox.errors import NotFoundError
from outbox.ids import DeliveryId, EventId, SubscriptionId

__all__ = [
    "STATES", "DeliveryDetails", "DeliveryState", "ListedDelivery", "list_deliveries", "outstanding_of_event",
    "show_delivery",
]  # fmt: skip

DeliveryState = OutstandingState | Literal["delivered", "cancelled"]
STATES: tuple[DeliveryState, ...] = (*get_args(OutstandingState), "delivered", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDelivery:
    """A delivery, and the event that it is of. Of an event past its retention nothing is known any more.

    `state` is one of STATES, or where one is shown by its id also dead, test or replayed_or_purged. `at` is when it is
    due (None of one that is parked), when its last attempt was, or when it died or was cancelled. `crashes` counts
    leases that ended unreported.
    """

    id: DeliveryId
    event_id: EventId | None
    subscription_id: SubscriptionId | None
    state: str
    at: datetime | None
    attempts: int
    crashes: int
    type: str | None
    tenant: str | None
    key: str | None
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryDetails(ListedDelivery):
    """A delivery with its attempts; of a dead one also why it died, of a parked one which delivery goes first.

    `advice` says what its last failure means and what usually mends it, None where it did not fail.
    """

    waits_for: DeliveryId | None
    reason: str | None
    error: str | None
    attempts_made: Page[Attempt]
    advice: Finding | None = None


_OWN = own("s.tenant")
_LISTED_OF_EVENT = Listing(name="outstanding", columns={}, own=_OWN, keys=(Key("d.id", "id", "uuid"),))

_DONE = """
select a.delivery_id as id, a.event_seq, e.id as event_id, e.type, e.tenant, e.key, a.subscription_id,
       s.shown_url as url,
       case when a.verdict = 'dead' then 'replayed_or_purged' else a.verdict end as state,
       a.at as due_at, a.number as attempts, 0 as crashes
from outbox.attempts a
left join outbox.subscriptions s on s.id = a.subscription_id
left join outbox.events e on e.seq = a.event_seq
where a.verdict in ({verdicts}) and {where} {order_by} limit :limit
"""

# By hand, unless the last request arrived all the same.
_CANCELLED = """w.verdict = 'cancelled' and not exists (
    select from outbox.attempts b where b.delivery_id = w.delivery_id and b.verdict = 'delivered')"""

_DEAD = f"""
select l.delivery_id as id, l.event_seq, l.event_id, l.type, l.tenant, l.key, l.subscription_id,
       s.shown_url as url,
       'dead' as state, l.died_at as due_at, l.attempts, 0 as crashes, l.reason, l.error
from outbox.dead_letters l left join outbox.subscriptions s on s.id = l.subscription_id
where l.delivery_id = :id and {OWN_DEAD_LETTER}
"""  # noqa: S608 - the parts are constants


def list_deliveries(
    connection: Connection,
    tenant: str | None,
    filters: Filters,
    state: DeliveryState | None = None,
    *,
    after: str | None = None,
) -> Page[ListedDelivery]:
    """Return outstanding deliveries, the longest due first; of the delivered or cancelled the newest.

    Args:
        connection: to the database.
        tenant: who asks; None is the operator.
        filters: since and until are about due_at; of what is done, about when it was. outcome, status and text are
            about attempts: they narrow what is delivered or cancelled.
        state: only these; None is all that is outstanding.
        after: the cursor of the page before.

    Raises:
        FilterError: no such state, or a cursor of another list.
    """
    if state is not None and state not in list(STATES):
        raise FilterError(f"state: {brief(state)} is not one of {', '.join(STATES)}")
    if state == "delivered":
        passing = "w.verdict = 'delivered'"
        return walk_attempts(connection, tenant, filters, after=after, make=_done, passing=passing)
    if state == "cancelled":
        return walk_attempts(connection, tenant, filters, after=after, make=_done, passing=_CANCELLED, failed=True)
    return walk_outstanding(connection, tenant, filters, state, after=after, make=_listed)


def outstanding_of_event(
    connection: Connection, tenant: str | None, event_id: UUID | str, *, after: str | None = None
) -> Page[ListedDelivery]:
    """Return the outstanding deliveries of one event, a thousand a page; none of an event that is not there."""
    where, parameters = _LISTED_OF_EVENT.where(tenant, Filters(limit=PAGE_ROWS), after)
    statement = (
        f"{OUTSTANDING} where d.event_seq = ({SEQ_OF_EVENT}) and {where} {_LISTED_OF_EVENT.order_by} limit :limit"
    )
    rows = connection.execute(text(statement), {**parameters, "event_id": EventId.of(event_id)}).all()
    return _LISTED_OF_EVENT.page(rows, PAGE_ROWS, _listed)


def show_delivery(connection: Connection, tenant: str | None, delivery_id: UUID | str) -> DeliveryDetails:
    """Return one delivery with its attempts, wherever it is: outstanding, delivered, a dead letter, or a test.

    Raises NotFoundError when there is no such delivery of this tenant, or its record is past its retention.
    """
    uuid = DeliveryId.of(delivery_id)
    for statement in (f"{OUTSTANDING} where d.id = :id and {_OWN}", _DEAD, _ANY_DONE):
        row = connection.execute(text(statement), {"id": uuid, "asking": tenant, "limit": 1}).one_or_none()
        if row is not None:
            attempts = attempts_of_delivery(connection, tenant, uuid)
            waits_for = _head(connection, tenant, uuid) if row.state == "parked" else None
            found = DeliveryDetails(**_fields(row), **_death(row), waits_for=waits_for, attempts_made=attempts)
            advice = advice_on(found.id, found.subscription_id, attempts.items, found.reason)
            return found if found.state in ("delivered", "cancelled") else replace(found, advice=advice)
    raise NotFoundError(f"delivery: no {uuid}; never made, cancelled, or past its retention")


_ANY_DONE = _DONE.format(
    where=f"a.delivery_id = :id and {_OWN}",
    verdicts="'delivered', 'dead', 'test', 'cancelled'",
    # A request that was on its way when it was cancelled may have arrived.
    order_by="order by a.verdict = 'delivered' desc, a.verdict = 'cancelled' desc, a.at desc",
)


_HEAD = f"""
select h.id from outbox.deliveries d
join outbox.subscriptions s on s.id = d.subscription_id
join outbox.deliveries h on h.subscription_id = d.subscription_id and h.lane = d.lane and isfinite(h.due_at)
where d.id = :id and not isfinite(d.due_at) and {_OWN}
"""  # noqa: S608 - constants


def _head(connection: Connection, tenant: str | None, delivery_id: UUID) -> DeliveryId | None:
    """Return the delivery that goes before this parked one, now the first of their key; None where there is none."""
    return DeliveryId.maybe(connection.execute(text(_HEAD), {"id": delivery_id, "asking": tenant}).scalar_one_or_none())


def _listed(row: Any) -> ListedDelivery:
    return ListedDelivery(**_fields(row))


def _done(row: Any) -> ListedDelivery:
    """Return what is done from its last attempt."""
    return ListedDelivery(
        id=DeliveryId.of(row.delivery_id),
        event_id=EventId.maybe(row.event_id),
        subscription_id=SubscriptionId.of(row.subscription_id),
        state=row.verdict,
        at=row.at,
        attempts=row.number,
        crashes=0,
        type=row.type,
        tenant=row.tenant,
        key=row.key,
        url=row.subscription_url,
    )


def _fields(row: Any) -> dict[str, Any]:
    return {
        "id": DeliveryId.of(row.id),
        "event_id": EventId.maybe(row.event_id),
        "subscription_id": SubscriptionId.maybe(row.subscription_id),
        "state": row.state,
        "at": row.due_at,
        "attempts": row.attempts,
        "crashes": row.crashes,
        "type": row.type,
        "tenant": row.tenant,
        "key": row.key,
        "url": row.url,
    }


def _death(row: Any) -> dict[str, Any]:
    dead = row.state == "dead"
    return {"reason": row.reason if dead else None, "error": row.error if dead else None}
