"""What the routes show of a webhook's deliveries, and the retry of one, in a plain session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy.orm import Session

import outbox
from outbox._payload_value import payload_value
from outbox.deliveries import ListedAttempt, ListedDelivery
from outbox.errors import NotFoundError
from outbox.fastapi.models import SHOWN_CHARACTERS
from outbox.fastapi.owner import Owner
from outbox.fastapi.webhooks import last_error_of
from outbox.ids import EventId

__all__ = ["Status", "list_history", "read_statistics", "retry"]

Status = Literal["delivered", "failed", "pending"]


def list_history(
    session: Session, owner: Owner, webhook_id: str, status: Status | None, limit: int, offset: int, after: str | None
) -> dict[str, Any]:
    """Return a page of a webhook's attempts, the newest first; of what is pending, the longest due first."""
    found = owner.find(session, webhook_id)
    where: dict[str, Any] = {"tenant": owner.tenant, "subscription": found.id, "limit": offset + limit, "after": after}
    if status == "pending":
        outstanding = outbox.deliveries.list(session, **where)
        chosen, following = [_outstanding(one) for one in outstanding.items[offset:]], outstanding.next
    else:
        made = outbox.deliveries.attempts(session, **where, outcome=status)
        chosen, following = [_attempt(one) for one in made.items[offset:]], made.next
    _add_payloads(session, owner, chosen)
    return {"items": chosen, "limit": limit, "offset": offset, "has_more": following is not None, "next": following}


def _attempt(one: ListedAttempt) -> dict[str, Any]:
    return {
        "id": str(one.delivery_id),
        "webhook_id": str(one.subscription_id),
        "event_id": one.event_id,
        "type": one.type,
        "status": one.verdict,
        "attempt": one.number,
        "status_code": one.status,
        "response_body": one.excerpt and one.excerpt[:SHOWN_CHARACTERS],
        "response_time_ms": one.milliseconds,
        "error": one.error or (None if one.outcome == "delivered" else one.outcome),
        "created_at": one.at,
        "due_at": None,
    }


def _outstanding(one: ListedDelivery) -> dict[str, Any]:
    nothing = ("status_code", "response_body", "response_time_ms", "error", "created_at")
    return {
        "id": str(one.id),
        "webhook_id": str(one.subscription_id),
        "event_id": one.event_id,
        "type": one.type,
        "status": "pending",
        "attempt": one.attempts,
        "due_at": one.at,
        **dict.fromkeys(nothing),
    }


def _add_payloads(session: Session, owner: Owner, entries: list[dict[str, Any]]) -> None:
    ids: list[EventId] = [entry["event_id"] for entry in entries if entry["event_id"] is not None]
    found = outbox.events.payloads(session, ids, tenant=owner.tenant) if ids else []
    texts = {one.event_id: one.payload for one in found}
    for entry in entries:
        text = texts.get(entry["event_id"])
        entry["payload"] = None if text is None else payload_value(text)
        entry["event_id"] = entry["event_id"] and str(entry["event_id"])


def read_statistics(session: Session, owner: Owner, webhook_id: str, over: str) -> Mapping[str, Any]:
    """Return the statistics of a webhook over so long."""
    found = owner.find(session, webhook_id)
    counted = outbox.statistics.read(session, owner.tenant, subscription=found.id, over=over)
    latencies = {f"{name}_ms": getattr(counted, name) for name in ("mean", "p50", "p95", "p99")}
    return {
        "since": counted.since,
        "success_count": counted.delivered,
        "failure_count": counted.dead,
        "failed_attempts": counted.failed,
        "success_rate": counted.success_rate,
        **latencies,
        "last_success_at": counted.last_delivered_at,
        "last_failure_at": counted.last_failed_at,
        "last_error": last_error_of(counted),
    }


def retry(session: Session, owner: Owner, webhook_id: str, delivery_id: str) -> dict[str, str]:
    """Try a delivery now that waits; deliver one again that was given up or had arrived."""
    found = owner.find(session, webhook_id)
    delivery = outbox.deliveries.get(session, delivery_id, tenant=owner.tenant)
    if str(delivery.subscription_id) != found.id:
        raise NotFoundError(f"delivery: no {delivery.id} of {found.id}")
    owner.sign(session)
    if delivery.state in ("dead", "delivered", "cancelled"):
        (made,) = outbox.replays.replay(session, delivery.id, tenant=owner.tenant).deliveries
    else:
        (made,) = outbox.deliveries.retry(session, delivery.id, tenant=owner.tenant).deliveries
    session.commit()
    return {"id": str(made)}
