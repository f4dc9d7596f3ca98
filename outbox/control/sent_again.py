"""What became of deliveries that ended: which were given up for now, and as which new one another was sent again."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.deliveries import DeliveryDetails, list_deliveries
from outbox.control.filters import Filters
from outbox.control.history import list_attempts
from outbox.control.tenancy import OWN_DEAD_LETTER
from outbox.ids import DeliveryId

__all__ = ["sent_again_as", "still_dead"]

_STILL_DEAD = text(f"""
select l.delivery_id from outbox.dead_letters l left join outbox.subscriptions s on s.id = l.subscription_id
where l.delivery_id = any(cast(:ids as uuid[])) and {OWN_DEAD_LETTER}
""")  # noqa: S608 - the parts are constants


def still_dead(connection: Connection, tenant: str | None, delivery_ids: Sequence[UUID]) -> frozenset[DeliveryId]:
    """Return which of these are dead letters of the tenant now: not sent again, and not deleted."""
    found = connection.execute(_STILL_DEAD, {"ids": list(delivery_ids), "asking": tenant}).scalars()
    return frozenset(map(DeliveryId.of, found))


def sent_again_as(connection: Connection, tenant: str | None, item: DeliveryDetails) -> DeliveryId | None:
    """Return the newest delivery of the same event for the same subscription that was made after this one, or None.

    Ids are UUIDv7: a later one is greater. It is None, too, where the event is past its retention.
    """
    if item.event_id is None or item.subscription_id is None:
        return None
    same = Filters(event=item.event_id, subscription=item.subscription_id, limit=_LOOKED_AT)
    outstanding = [one.id for one in list_deliveries(connection, tenant, same)]
    tried = [one.delivery_id for one in list_attempts(connection, tenant, same) if one.verdict != "test"]
    return max((one for one in (*outstanding, *tried) if one > item.id), default=None)


_LOOKED_AT = 100
