"""Dead letters: deliveries that were given up, with the reason and a payload of their own. They leave by replay or
purge only. How to call these is said in outbox.deliveries; outbox.replays sends them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from outbox.control import dead_letters as _dead_letters
from outbox.control.asking import DeliveriesWhere, Tenant, connection_of, deliveries_of, whose
from outbox.control.dead_letters import DeadLetterDetails, ListedDeadLetter
from outbox.control.filters import Filters
from outbox.control.pages import Page
from outbox.ids import DeliveryId

__all__ = ["DeadLetterDetails", "ListedDeadLetter", "Page", "get", "list", "purge"]


def list(  # noqa: A001 - the verb of the interface
    connection: Session | Connection, *, tenant: Tenant = "", after: str | None = None, **where: Unpack[DeliveriesWhere]
) -> Page[ListedDeadLetter]:
    """Return the newest dead letters.

    Args:
        connection: a Session or Connection.
        tenant: whose.
        after: the cursor of the page before.
        where: since and until (about when it died), type, key, subscription, event, text, limit.

    Raises:
        FilterError: a filter was refused.
    """
    return _dead_letters.list_dead_letters(connection_of(connection), whose(tenant), Filters(**where), after=after)


def get(connection: Session | Connection, delivery_id: str | UUID, *, tenant: Tenant = "") -> DeadLetterDetails:
    """Return one dead letter with its payload and attempts. Raises NotFoundError."""
    return _dead_letters.show_dead_letter(
        connection_of(connection), whose(tenant), DeliveryId.of(delivery_id, "delivery_id")
    )


def purge(
    connection: Session | Connection, delivery_ids: str | UUID | Sequence[str | UUID], *, tenant: Tenant = ""
) -> int:
    """Delete dead letters for good and return how many; the caller commits. The audit notes it.

    Raises NotFoundError, before any is deleted, where one is none of this tenant's.
    """
    asked, asking = connection_of(connection, to_write=True), whose(tenant)
    return _dead_letters.purge(
        asked, asking, _dead_letters.find_by_id(asked, asking, deliveries_of(delivery_ids, "delivery_ids"))
    )
