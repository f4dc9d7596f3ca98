"""Calls about deliveries and their attempts: read, retry, cancel, replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.control.attempts import Attempt, ListedAttempt
from outbox.control.deliveries import DeliveryDetails, ListedDelivery
from relay.client.calls.making import chosen, get_one, get_page, not_none, send
from relay.client.results import Cancelled, Replayed, Retried

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outbox.control.pages import Page
    from relay.client.call import Call

__all__ = [
    "cancel_deliveries",
    "cancel_delivery",
    "get_attempts",
    "get_deliveries",
    "get_delivery",
    "get_delivery_attempts",
    "replay_deliveries",
    "retry_deliveries",
    "retry_delivery",
]


def get_deliveries(**filters: Any) -> Call[Page[ListedDelivery]]:
    """List deliveries; filters: those of attempts, and state."""
    return get_page(ListedDelivery, "/deliveries", **filters)


def get_delivery(delivery_id: object) -> Call[DeliveryDetails]:
    """Show one delivery with its attempts."""
    return get_one(DeliveryDetails, "/deliveries/{}", delivery_id)


def get_delivery_attempts(delivery_id: object, after: str | None = None) -> Call[Page[Attempt]]:
    """List the attempts of a delivery."""
    return get_page(Attempt, "/deliveries/{}/attempts", delivery_id, after=after)


def retry_deliveries(
    ids: Sequence[object] | None = None, filters: Mapping[str, Any] | None = None, *, dry_run: bool = False
) -> Call[Retried]:
    """Make due now what waits for a retry: by ids or by filters."""
    return send(Retried, "POST", "/deliveries/retry", body=chosen(ids, filters, dry_run=dry_run))


def retry_delivery(delivery_id: object) -> Call[Retried]:
    """Make one delivery due now."""
    return send(Retried, "POST", "/deliveries/{}/retry", delivery_id)


def cancel_deliveries(
    ids: Sequence[object] | None = None, filters: Mapping[str, Any] | None = None, *, dry_run: bool = False
) -> Call[Cancelled]:
    """Cancel for good what is outstanding: by ids or by filters."""
    return send(Cancelled, "POST", "/deliveries/cancel", body=chosen(ids, filters, dry_run=dry_run))


def cancel_delivery(delivery_id: object) -> Call[Cancelled]:
    """Cancel one delivery for good."""
    return send(Cancelled, "POST", "/deliveries/{}/cancel", delivery_id)


def replay_deliveries(
    ids: Sequence[object] | None = None,
    filters: Mapping[str, Any] | None = None,
    *,
    to: object = None,
    to_all: bool = False,
    state: str = "dead",
    dry_run: bool = False,
    once: str | None = None,
) -> Call[Replayed]:
    """Deliver again: by ids of deliveries, dead letters or events, or by filters."""
    more = not_none(to=to and str(to), to_all=to_all or None, state=None if ids is not None else state)
    body = chosen(ids, filters, dry_run=dry_run) | more
    return send(Replayed, "POST", "/replays", body=body, once=once)


def get_attempts(**filters: Any) -> Call[Page[ListedAttempt]]:
    """List attempts; filters: those of dead letters, and outcome, status."""
    return get_page(ListedAttempt, "/attempts", **filters)
