"""All that notely needs for webhooks: its event types, the API for its users, and what sends each event."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import outbox
from examples.notely.database import current_user, get_session
from outbox.fastapi import Shape, webhooks_router

EVENT_TYPES = {
    "Email": {
        "email.received": "Email received and indexed",
        "email.sent": "Email sent successfully",
        "email.indexed": "Email indexed in vector DB",
    },
    "Calendar": {
        "calendar.event.created": "Event created",
        "calendar.event.updated": "Event updated",
        "calendar.event.deleted": "Event deleted",
    },
    "Tasks": {
        "task.created": "Task created",
        "task.updated": "Task updated",
        "task.completed": "Task completed",
        "task.deleted": "Task deleted",
    },
    "Indexing": {
        "indexing.started": "Indexing started",
        "indexing.completed": "Indexing completed",
        "indexing.failed": "Indexing failed",
    },
    "User": {
        "user.created": "User account created",
        "user.settings.updated": "Settings updated",
    },
    "System": {
        "export.completed": "Data export completed",
        "sync.completed": "Sync completed",
    },
}

router = webhooks_router(
    session=get_session,
    owner=current_user,
    event_types=EVENT_TYPES,
    shape=Shape(
        retry_count=3,
        first_delay_seconds=2,
        timeout_seconds=10,
        longest_timeout_seconds=60,  # after 2, 4 and 8 seconds
    ),
    settings={"format": "notely", "scheme": "notely"},  # the body and signature that its users' receivers know
)


def trigger_email_received_webhook(*, email_id: str, email_data: dict[str, Any], user_id: int) -> outbox.Event:
    """Tell a user's webhooks that an e-mail came; it is sent when the transaction in use commits."""
    return outbox.emit("email.received", {"email_id": email_id, **email_data}, key=email_id, tenant=str(user_id))


def trigger_task_completed_webhook(*, task_id: str, task_data: dict[str, Any], user_id: int) -> outbox.Event:
    """Tell a user's webhooks that a task is done; it is sent when the transaction in use commits."""
    return outbox.emit("task.completed", {"task_id": task_id, **task_data}, key=task_id, tenant=str(user_id))


def retry_failed_webhooks(user_id: int) -> int:
    """Deliver again what was given up of a user's; return how much that is. A job can do it every five minutes."""
    return outbox.replays.replay_matching(outbox.current_session(), tenant=str(user_id), since=timedelta(days=1)).count
