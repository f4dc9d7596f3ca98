"""The payloads of several events at once, for lists that show what was sent."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.tenancy import own
from outbox.ids import EventId

__all__ = ["EventPayload", "payloads_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPayload:
    """The payload of an event, the JSON text that was recorded."""

    event_id: EventId
    payload: str


_PAYLOADS = text(f"""
select id, payload from outbox.events where id = any(cast(:ids as uuid[])) and {own("tenant")}
""")  # noqa: S608 - the parts are constants


def payloads_of(connection: Connection, tenant: str | None, event_ids: Collection[UUID]) -> list[EventPayload]:
    """Return the payload of each of these events, in no order; none of one past its retention."""
    ids = [UUID(int=one.int) for one in event_ids]
    rows = connection.execute(_PAYLOADS, {"ids": ids, "asking": tenant}) if ids else ()
    return [EventPayload(event_id=EventId.of(row.id), payload=row.payload) for row in rows]
