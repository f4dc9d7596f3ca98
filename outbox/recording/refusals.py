"""Events that `record(on_error="log")` refused: a line in the log for each, and a count.

Where OpenTelemetry's metrics were imported, the count goes there too, as `outbox.events.refused`.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from typing import Any

from outbox._text import MAX_TYPE_BYTES, brief, qualified_kind
from outbox.errors import OutboxError
from outbox.ids import new_uuid7, text_id
from outbox.recording.event import Event

__all__ = ["note_refusal", "refused", "refused_events"]

log = logging.getLogger("outbox")

_lock = threading.Lock()
_counts: Counter[str] = Counter()


def refused_events() -> dict[str, int]:
    """Return how many events `record(on_error="log")` refused in this process, by the class of the error.

    E.g. {"PayloadError": 2, "CheckViolation": 1}; it only grows.
    """
    with _lock:
        return dict(_counts)


def refused(type_: Any, key: Any, tenant: Any, available_at: Any, error: Exception) -> Event:
    """Log and count an event that was refused; return it as it was given, under an id that the log has too."""
    event = Event(text_id("evt", new_uuid7()), type_, key, tenant, available_at, recorded=False)
    is_named = isinstance(type_, str) and len(type_) <= MAX_TYPE_BYTES and type_.isprintable()
    note_refusal(type_ if is_named else brief(type_), event.id, error)
    return event


def note_refusal(event_type: str, event_id: str, error: Exception) -> None:
    """Log and count an event that was refused. What the error says of the payload is never shown."""
    cause = getattr(error, "orig", None) or error
    kind = type(cause).__name__
    # Of a foreign error only the class is told: what it says may hold the payload. A server's message does not.
    said = isinstance(cause, OutboxError) or getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    reason = str(cause).partition("\n")[0] if said else qualified_kind(cause)
    log.error("event %s (%s) was not recorded: %s", event_id, event_type, reason)
    with _lock:
        _counts[kind] += 1
    _tell_opentelemetry(kind)


def _tell_opentelemetry(kind: str) -> None:
    api: Any = sys.modules.get("opentelemetry.metrics")
    if api is not None:
        counter = api.get_meter("outbox-relay").create_counter(
            "outbox.events.refused", unit="{event}", description="Events that record(on_error='log') did not record"
        )
        counter.add(1, {"error.type": kind})
