"""An event's parts, as statements read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.ids import event_id_of
from relay.model.event import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["event_of"]


def event_of(parts: Sequence[Any]) -> Event | None:
    """Return the event of these columns: id, tenant, type, key, recorded_at, payload as UTF-8.

    Ids and times come as the bytes that the server sent. None where there is no payload: it was not read, or the row is
    gone.
    """
    identity, tenant, type_, key, recorded_at, payload = parts
    if payload is None:
        return None
    moment = int.from_bytes(recorded_at, "big", signed=True)
    return Event(event_id_of(identity), type_.encode(), tenant, key, moment, payload)
