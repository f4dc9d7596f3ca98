"""Attempts: each POST that was made, of a delivery or of all deliveries of an event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.filters import SEQ_OF_EVENT, Filters
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import own
from outbox.formats import shown_url
from outbox.ids import DeliveryId, EventId, SubscriptionId

__all__ = [
    "PAGE_ROWS", "Attempt", "ListedAttempt", "attempt_fields", "attempts_of_delivery", "attempts_of_event",
    "failure_of",
]  # fmt: skip

PAGE_ROWS = 1_000
"""The rows of a page that lists what belongs to one event or delivery."""
_ERROR_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One POST: the outcome is what the network said, the verdict what was concluded; the rest as far as it is kept.

    `excerpt` is the beginning of the answer's body; bytes that are no UTF-8 are written out as \\x…
    """

    delivery_id: DeliveryId
    subscription_id: SubscriptionId
    number: int
    at: datetime
    verdict: str
    outcome: str
    status: int | None
    milliseconds: int
    error: str | None
    url: str | None
    address: str | None
    headers: str | None
    excerpt: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAttempt(Attempt):
    """An attempt and the event that it was about, of which nothing is known once it is past its retention.

    A test message is of no event. `endpoint` is the URL of its subscription now, whatever was kept of the attempt.
    """

    event_id: EventId | None
    type: str | None
    tenant: str | None
    key: str | None
    endpoint: str | None = None


_SUBSCRIPTIONS_TENANT = "(select tenant from outbox.subscriptions s where s.id = subscription_id)"
_LISTING = Listing(
    name="attempts",
    columns={},
    own=own(_SUBSCRIPTIONS_TENANT),
    keys=(Key("at", "at", "timestamptz"), Key("number", "number", "bigint"), Key("delivery_id", "delivery_id", "uuid")),
)
_SELECT = """
select delivery_id, event_seq, subscription_id, number, at, verdict, outcome, status, milliseconds, error, url,
       address, headers, excerpt
from outbox.shown_attempts
"""


def attempts_of_delivery(
    connection: Connection, tenant: str | None, delivery_id: UUID | str, *, after: str | None = None
) -> Page[Attempt]:
    """Return the attempts of one delivery in the order they were made, a thousand a page."""
    return _page(connection, tenant, "delivery_id = :delivery_id", {"delivery_id": DeliveryId.of(delivery_id)}, after)


def attempts_of_event(
    connection: Connection, tenant: str | None, event_id: UUID | str, *, after: str | None = None
) -> Page[Attempt]:
    """Return the attempts of one event's deliveries in the order they were made, a thousand a page."""
    return _page(connection, tenant, f"event_seq = ({SEQ_OF_EVENT})", {"event_id": EventId.of(event_id)}, after)


def _page(
    connection: Connection, tenant: str | None, condition: str, bound: dict[str, Any], after: str | None
) -> Page[Attempt]:
    where, parameters = _LISTING.where(tenant, Filters(limit=PAGE_ROWS), after)
    statement = f"{_SELECT} where {condition} and {where} {_LISTING.order_by} limit :limit"
    return _LISTING.page(connection.execute(text(statement), parameters | bound).all(), PAGE_ROWS, _attempt)


def _attempt(row: Any) -> Attempt:
    return Attempt(**attempt_fields(row))


def failure_of(outcome: str | None, status: int | None, error: str | None) -> str:
    """Return how an attempt failed: status or outcome, and the error, cut where it is long; '' where none did."""
    if outcome in (None, "delivered"):
        return ""
    said = (error or "").strip()
    answered = f"it answers {status}" if status else "" if said.startswith(str(outcome)) else str(outcome)
    said = said if len(said) <= _ERROR_CHARACTERS else f"{said[:_ERROR_CHARACTERS]}…"
    return ": ".join(filter(None, (answered, said)))


def attempt_fields(row: Any) -> dict[str, Any]:
    """Return the fields of an Attempt from a row of outbox.attempts."""
    return {
        "delivery_id": DeliveryId.of(row.delivery_id),
        "subscription_id": SubscriptionId.of(row.subscription_id),
        "number": row.number,
        "at": row.at,
        "verdict": row.verdict,
        "outcome": row.outcome,
        "status": row.status,
        "milliseconds": row.milliseconds,
        "error": row.error,
        "url": row.url and shown_url(row.url),
        "address": row.address,
        "headers": row.headers,
        "excerpt": None if row.excerpt is None else bytes(row.excerpt).decode("utf-8", "backslashreplace"),
    }
