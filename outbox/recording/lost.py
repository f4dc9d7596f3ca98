"""Tell of events that a session held when it ended, with nobody having committed or rolled back."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from outbox.ids import text_id
from outbox.recording.statements import Row

__all__ = ["tell_lost"]

log = logging.getLogger("outbox")

_NAMED_MAX = 5


def tell_lost(rows: Sequence[Row], others: int, how: str) -> None:
    """Log, and warn with a ResourceWarning, that a session ended with these events, and with others besides."""
    named = [f"{row.type} {text_id('evt', row.id)}" for row in rows[:_NAMED_MAX]]
    if more := len(rows) - len(named) + others:
        named.append(f"{more} more" if named else f"{more} in all")
    told = (
        f"events are lost: a session {how} while it held {', '.join(named)}, "
        "and nobody had committed it or rolled it back"
    )
    log.warning("%s", told)
    warnings.warn(told, ResourceWarning, stacklevel=2)
