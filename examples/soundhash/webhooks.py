"""All that SoundHash needs for webhooks: its event types, the API for its users, and what emits each event.

An event is worth less than what it tells of: where one cannot be recorded, that is logged, and the work goes on.
"""

from __future__ import annotations

from typing import Any

import outbox
from examples.soundhash.database import get_session, tenant_and_user
from outbox.fastapi import Shape, webhooks_router

EVENT_TYPES = {
    "match.found": "New audio match discovered",
    "video.processed": "Video processing complete",
    "job.failed": "Background job failed",
    "user.created": "New user registration",
    "subscription.updated": "Plan change",
    "api.limit_reached": "Usage threshold",
}

FINAL = [status for status in range(400, 500) if status not in (408, 410, 425, 429)]
"""Answers that trying again would not change. 410 Gone ends the webhook."""

router = webhooks_router(
    session=get_session,
    owner=tenant_and_user,
    event_types=EVENT_TYPES,
    shape=Shape(
        event="event", event_types_path="/events", retry_count=3, first_delay_seconds=60, timeout_seconds=30,
        test_type="match.found",
    ),
    settings={
        "format": "soundhash", "scheme": "soundhash", "rate_limit": "100/s",
        "final_statuses": FINAL,
    },
)  # fmt: skip


def emit_match_found(*, tenant_id: str, match_id: int, **more: Any) -> outbox.Event:
    """Emit match.found, as the five below do theirs: from sync or async code, with or without a running loop."""
    return _emit("match.found", tenant_id, {"match_id": match_id, **more})


def emit_video_processed(*, tenant_id: str, video_id: str, **more: Any) -> outbox.Event:
    return _emit("video.processed", tenant_id, {"video_id": video_id, **more})


def emit_job_failed(*, tenant_id: str, job_id: str, error: str, **more: Any) -> outbox.Event:
    return _emit("job.failed", tenant_id, {"job_id": job_id, "error": error, **more})


def emit_user_created(*, tenant_id: str, user_id: int, username: str, email: str) -> outbox.Event:
    return _emit("user.created", tenant_id, {"user_id": user_id, "username": username, "email": email})


def emit_subscription_updated(*, tenant_id: str, user_id: int, plan: str) -> outbox.Event:
    return _emit("subscription.updated", tenant_id, {"user_id": user_id, "plan": plan})


def emit_api_limit_reached(*, tenant_id: str, user_id: int, limit: int) -> outbox.Event:
    return _emit("api.limit_reached", tenant_id, {"user_id": user_id, "limit": limit})


def _emit(event: str, tenant: str, data: dict[str, Any]) -> outbox.Event:
    return outbox.emit(event, data, tenant=tenant, on_error="log")
