"""Deliveries, one event for one subscription each: what is under way, what was done, and every attempt.

Plain functions in the caller's own transaction, as outbox.subscriptions has them. Asynchronous code calls
`await session.run_sync(outbox.deliveries.list, tenant="acme")`, likewise for each. They need no relay and none of its
keys. Each looks at one tenant's deliveries, those to its own subscriptions; the operator says outbox.EVERY_TENANT. A
long list comes in pages: `page.next` goes back as `after`, until it is None. Where a page says `searched_until`, it
has looked at as many rows as one page may, as far as that time; what comes after it may match too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from outbox.control import by_hand as _by_hand
from outbox.control import deliveries as _deliveries
from outbox.control import history as _history
from outbox.control.asking import AttemptsWhere, Tenant, connection_of, deliveries_of, whose
from outbox.control.attempts import Attempt, ListedAttempt
from outbox.control.by_hand import Cancelled, Retried
from outbox.control.deliveries import DeliveryDetails, DeliveryState, ListedDelivery
from outbox.control.filters import Filters
from outbox.control.pages import Page
from outbox.ids import DeliveryId

__all__ = [
    "Attempt",
    "Cancelled",
    "DeliveryDetails",
    "DeliveryState",
    "ListedAttempt",
    "ListedDelivery",
    "Page",
    "Retried",
    "attempts",
    "cancel",
    "get",
    "list",
    "retry",
]


def list(  # noqa: A001 - the verb of the interface
    connection: Session | Connection,
    *,
    tenant: Tenant = "",
    state: DeliveryState | None = None,
    after: str | None = None,
    **where: Unpack[AttemptsWhere],
) -> Page[ListedDelivery]:
    """Return what is outstanding, the longest due first; of the delivered or cancelled the newest.

    Args:
        connection: a Session or Connection.
        tenant: whose.
        state: due, waiting, parked, leased, held, paused, disabled, removed; delivered, cancelled; None is all that is
            outstanding. Dead ones are in outbox.dead_letters.
        after: the cursor of the page before.
        where: since and until (about when it is due, or was done), type, key, subscription, event, limit; of what is
            done also outcome, status and text.

    Raises:
        FilterError: a filter was refused, or does not apply here.
    """
    return _deliveries.list_deliveries(connection_of(connection), whose(tenant), Filters(**where), state, after=after)


def get(connection: Session | Connection, delivery_id: str | UUID, *, tenant: Tenant = "") -> DeliveryDetails:
    """Return one delivery with its attempts, wherever it is: outstanding, done, a dead letter, or a test message.

    Raises NotFoundError when there is none of this tenant, or its record is past its retention.
    """
    return _deliveries.show_delivery(
        connection_of(connection), whose(tenant), DeliveryId.of(delivery_id, "delivery_id")
    )


def attempts(
    connection: Session | Connection, *, tenant: Tenant = "", after: str | None = None, **where: Unpack[AttemptsWhere]
) -> Page[ListedAttempt]:
    """Return the newest attempts: what was sent and what came of it, test messages too.

    Args:
        connection: a Session or Connection.
        tenant: whose.
        after: the cursor of the page before.
        where: since, until, subscription, event and `outcome="failed"` are quick at any size; type, key, outcome,
            status and text are asked of a bounded number of attempts a page.

    Raises:
        FilterError: a filter was refused.
    """
    return _history.list_attempts(connection_of(connection), whose(tenant), Filters(**where), after=after)


def retry(
    connection: Session | Connection, delivery_ids: str | UUID | Sequence[str | UUID], *, tenant: Tenant = ""
) -> Retried:
    """Make deliveries that wait for a retry due now; the caller commits. The audit notes it (outbox.act_as).

    Raises:
        NotFoundError: one is none of this tenant's.
        ByHandError: one does not wait; the message says what it does. Nothing was changed.
    """
    asked, asking = connection_of(connection, to_write=True), whose(tenant)
    return _by_hand.retry_now(
        asked, asking, _by_hand.waiting_by_id(asked, asking, deliveries_of(delivery_ids, "delivery_ids"))
    )


def cancel(
    connection: Session | Connection, delivery_ids: str | UUID | Sequence[str | UUID], *, tenant: Tenant = ""
) -> Cancelled:
    """Cancel outstanding deliveries for good; the caller commits. The audit notes it.

    A request that is on its way may still arrive: `leased` names those. Raises NotFoundError and ByHandError as
    `retry` does.
    """
    asked, asking = connection_of(connection, to_write=True), whose(tenant)
    return _by_hand.cancel(
        asked, asking, _by_hand.outstanding_by_id(asked, asking, deliveries_of(delivery_ids, "delivery_ids"))
    )
