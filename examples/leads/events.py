"""What n8n is told of: events that are captured from rows, events that are recorded, and where each type goes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from sqlalchemy.orm import Session

import outbox
from examples.leads.database import Demo, Lead, Video

log = logging.getLogger("leads")

PRIORITIES = {  # 0 normal, 1 high, 2 urgent, 3 critical
    "lead_scraped": 0, "lead_qualified": 0, "demo_completed": 1, "demo_failed": 2, "video_completed": 1,
    "video_failed": 2, "email_sent": 0, "email_failed": 2, "lead_responded": 2, "approval_requested": 2,
    "workflow_error": 3,
}  # fmt: skip
RETRIES_SECONDS = (5, 30, 300)
SECRET = os.environ.get("N8N_WEBHOOK_SECRET", "")

_ON, _OFF = ("true", "on", "yes", "1"), ("false", "off", "no", "0")


def start_capture() -> list[outbox.Capture]:
    """Record what sessions do to rows from now on. Each capture has a `remove()`."""
    return [
        outbox.capture(
            Lead, created="lead_scraped", priority=_priority, key=_entity,
            became={"status": {"qualified": "lead_qualified", "responded": "lead_responded"}},
        ),
        outbox.capture(
            Demo, created="approval_requested", priority=_priority, key=_entity,
            became={"status": {"completed": "demo_completed", "failed": "demo_failed"}},
        ),
        outbox.capture(
            Video, created="approval_requested", priority=_priority, key=_entity,
            became={"status": {"completed": "video_completed", "failed": "video_failed"}},
        ),
    ]  # fmt: skip


def _priority(change: outbox.Change) -> int:
    return PRIORITIES[change.type]


def _entity(change: outbox.Change) -> str:
    """Return what the event is about, as the audit names it: lead:7."""
    return f"{type(change.instance).__name__.lower()}:{change.row['id']}"


def tell(session: Session, event: str, data: Mapping[str, object], entity: str) -> None:
    """Record an event that no change of a row makes."""
    outbox.record(session, event, dict(data), key=entity, priority=PRIORITIES[event])


def subscribe_n8n(session: Session, settings: Mapping[str, str]) -> list[str]:
    """Make the subscriptions what the settings say, one URL a type; return the types that go nowhere.

    N8N_URL_LEAD_SCRAPED and so on are the URLs; N8N_ENABLED=false pauses all. Without N8N_WEBHOOK_SECRET requests are
    signed by a secret that nobody has. Raises SubscriptionError for a bad URL, ValueError for another setting.
    """
    on, schedule = _is_on(settings.get("N8N_ENABLED", "true")), _schedule(settings.get("N8N_RETRIES", "3"))
    missing = []
    for event in PRIORITIES:
        url = settings.get(f"N8N_URL_{event.upper()}", "")
        known = _named(session, event)
        if not url:
            missing.append(event)
            if known is not None:
                outbox.subscriptions.remove(session, known.id)
        elif known is None:
            outbox.subscribe(
                session, url, [event], name=event, secret=SECRET or None, format="leads", scheme="leads",
                schedule_seconds=schedule,
            )  # fmt: skip
        elif (known.url, list(known.schedule_seconds)) != (url, schedule):
            outbox.subscriptions.update(session, known.id, url=url, schedule_seconds=schedule)
    switch(session, on=on)
    for event in missing:
        log.warning("N8N_URL_%s: is not set, nobody is told of %s", event.upper(), event)
    return missing


def _is_on(word: str) -> bool:
    if word.lower() not in (*_ON, *_OFF):
        raise ValueError(f"N8N_ENABLED: {word!r} is neither of {', '.join(_ON)} nor of {', '.join(_OFF)}")
    return word.lower() in _ON


def _schedule(retries: str) -> list[int]:
    """Return so many delays; beyond the third each is as long as that."""
    if not retries.isdecimal() or int(retries) > 20:
        raise ValueError(f"N8N_RETRIES: {retries!r} is not a number from 0 to 20")
    return [RETRIES_SECONDS[min(number, 2)] for number in range(int(retries))]


def switch(session: Session, *, on: bool) -> None:
    """Start or stop what goes to n8n. While it is stopped, deliveries wait."""
    change = outbox.subscriptions.resume if on else outbox.subscriptions.pause
    for subscription in outbox.subscriptions.list(session, limit=100):
        change(session, subscription.id)


def _named(session: Session, name: str) -> outbox.subscriptions.Subscription | None:
    try:
        return outbox.subscriptions.get(session, name)
    except outbox.NotFoundError:
        return None
