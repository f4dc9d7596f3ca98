"""The track of one event, from the transaction that recorded it to each receiver: what was, and what is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.advice import advice_on
from outbox.control.attempts import Attempt
from outbox.control.events import Counts, EventDetails, Resolution, show_event
from outbox.control.explain import ExplainedSubscription, explain_event
from outbox.control.findings import Finding
from outbox.control.pages import Page
from outbox.control.waits import Waits, read_waits, waits_of_pending
from outbox.ids import DeliveryId, EventId, SubscriptionId

__all__ = ["EventTrack", "TrackedDelivery", "track_event", "track_shown"]

MOST_DELIVERIES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedDelivery:
    """One delivery of the event: its attempts, and what is next.

    `state` is that of a delivery, or dead (with the reason), or replayed_or_purged. `next_at` is when it is tried next
    if nothing else keeps it; `waits` is all that does. Both are empty where it is done. `advice` says what its last
    failure means and what usually mends it, None where it did not fail.
    """

    id: DeliveryId
    subscription_id: SubscriptionId | None
    url: str | None
    state: str
    reason: str | None
    attempts: tuple[Attempt, ...]
    next_at: datetime | None
    waits: tuple[Waits, ...]
    advice: Finding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTrack:
    """One event from record to receiver.

    Who recorded it is known by its tenant, by its `metadata`, and by `trace`, the W3C headers of the trace that it was
    recorded in, where there was one. `idempotent`: whether it was recorded with an idempotency key that is still known.
    `pending` says why it is not resolved yet. Of its deliveries the first 200 are there; `more_deliveries` tells that
    there are others. `subscriptions` has each, as it is now, and why it gets such an event or does not.
    """

    id: EventId
    type: str
    tenant: str
    key: str | None
    state: str
    recorded_at: datetime
    available_at: datetime | None
    priority: int | None
    idempotent: bool
    trace: dict[str, str] | None
    metadata: dict[str, str] | None
    payload_bytes: int
    pending: Waits | None
    resolution: Resolution | None
    counts: Counts
    deliveries: tuple[TrackedDelivery, ...]
    more_deliveries: bool
    subscriptions: Page[ExplainedSubscription]


def track_event(
    connection: Connection,
    tenant: str | None,
    event_id: UUID | str,
    *,
    subscription: UUID | str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> EventTrack:
    """Return the track of an event.

    Args:
        connection: to the database.
        tenant: who asks; None is the operator.
        event_id: `evt_…` or the UUID.
        subscription: only this subscription, whatever it is, and deliveries to it.
        after: the cursor of the page of subscriptions before.
        limit: how many subscriptions.

    Raises:
        NotFoundError: no such event of this tenant, or past its retention; no such subscription.
    """
    found = show_event(connection, tenant, event_id)
    return track_shown(connection, tenant, found, subscription=subscription, after=after, limit=limit)


def track_shown(
    connection: Connection,
    tenant: str | None,
    found: EventDetails,
    *,
    subscription: UUID | str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> EventTrack:
    """Return the track of an event that `show_event` has read; the rest is as of `track_event`."""
    explained = explain_event(connection, tenant, found.id, subscription=subscription, after=after, limit=limit)
    deliveries = _deliveries(connection, tenant, found)
    if subscription is not None:
        deliveries = [one for one in deliveries if one.subscription_id == SubscriptionId.of(subscription)]
    cut = any(page.next is not None for page in (found.deliveries, found.attempts, found.dead_letters))
    return EventTrack(
        id=found.id,
        type=found.type,
        tenant=found.tenant,
        key=found.key,
        state=found.state,
        recorded_at=found.recorded_at,
        available_at=found.available_at,
        priority=found.priority,
        idempotent=_is_idempotent(connection, found.id),
        trace=found.trace,
        metadata=found.metadata,
        payload_bytes=len((found.payload or "").encode()),
        pending=waits_of_pending(connection) if found.state == "pending" else None,
        resolution=found.resolution,
        counts=found.counts,
        deliveries=tuple(deliveries[:MOST_DELIVERIES]),
        more_deliveries=cut or len(deliveries) > MOST_DELIVERIES,
        subscriptions=explained.subscriptions,
    )


_IDEMPOTENT = text("select exists (select from outbox.idempotency_keys where event_id = :id)")


def _is_idempotent(connection: Connection, event_id: EventId) -> bool:
    return bool(connection.execute(_IDEMPOTENT, {"id": event_id}).scalar_one())


def _deliveries(connection: Connection, tenant: str | None, found: EventDetails) -> list[TrackedDelivery]:
    """Return what came of the event, in the order in which the deliveries were made."""
    outstanding = {one.id: one for one in found.deliveries}
    dead = {one.delivery_id: one for one in found.dead_letters}
    by_delivery = sorted(found.attempts, key=lambda attempt: attempt.delivery_id.int)
    made = {name: tuple(group) for name, group in groupby(by_delivery, key=lambda attempt: attempt.delivery_id)}
    names = sorted({*outstanding, *dead, *made}, key=lambda name: name.int)[: MOST_DELIVERIES + 1]
    kept = read_waits(connection, tenant, [name for name in names if name in outstanding])
    waits = {one.id: one.waits for one in kept}
    of = {name: _subscription_of(outstanding.get(name), dead.get(name), made.get(name, ())) for name in names}
    urls = _urls(connection, [one for one in of.values() if one is not None])
    return [
        TrackedDelivery(
            id=name,
            subscription_id=of[name],
            url=urls.get(of[name]),
            state=outstanding[name].state if name in outstanding else "dead" if name in dead else _ended(made[name]),
            reason=dead[name].reason if name in dead else None,
            attempts=made.get(name, ()),
            next_at=outstanding[name].at if name in outstanding else None,
            waits=waits.get(name, ()),
            advice=advice_on(name, of[name], made.get(name, ()), dead[name].reason if name in dead else None),
        )
        for name in names
    ]


def _subscription_of(*known: object) -> SubscriptionId | None:
    """Return the subscription that one of these names: a delivery, a dead letter, or attempts."""
    for one in known:
        first = one[0] if isinstance(one, tuple) and one else one
        if (name := getattr(first, "subscription_id", None)) is not None:
            return SubscriptionId.of(name)
    return None


def _ended(attempts: Sequence[Attempt]) -> str:
    """Return what became of a delivery that is neither outstanding nor dead, by its attempts."""
    verdicts = {attempt.verdict for attempt in attempts}
    for verdict in ("delivered", "cancelled"):
        if verdict in verdicts:
            return verdict
    return "replayed_or_purged" if "dead" in verdicts else "removed"


_URLS = text("select id, shown_url from outbox.subscriptions where id = any(cast(:ids as uuid[]))")


def _urls(connection: Connection, ids: Sequence[SubscriptionId]) -> dict[SubscriptionId | None, str]:
    rows = connection.execute(_URLS, {"ids": list(ids)})
    return {SubscriptionId.of(row.id): row.shown_url for row in rows}
