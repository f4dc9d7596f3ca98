"""What was received: a list, one request, and forgetting an id so that the next copy is processed.

Plain functions in the caller's transaction; asynchronous code calls `await session.run_sync(outbox.inbox.messages)`.
They need the rights of outbox_operator or outbox_reader (forget: outbox_operator). A long list comes in pages:
`page.next` goes back as `after`, until it is None.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypedDict, Unpack
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from outbox.control import inbox as _control
from outbox.control.asking import Tenant, connection_of, whose
from outbox.control.filters import Filters
from outbox.control.inbox import ReceivedDetails, ReceivedOutcome, ReceivedRequest
from outbox.control.pages import Page

__all__ = ["forget", "get", "messages"]


class _Where(TypedDict, total=False):
    since: datetime | timedelta | None
    until: datetime | timedelta | None
    limit: int


def messages(
    connection: Session | Connection,
    *,
    tenant: Tenant = "",
    source: str | None = None,
    outcome: ReceivedOutcome | None = None,
    entity: str | None = None,
    message: str | None = None,
    after: str | None = None,
    **where: Unpack[_Where],
) -> Page[ReceivedRequest]:
    """Return the requests that were received, newest first.

    Args:
        connection: a Session or Connection.
        tenant: whose; outbox.EVERY_TENANT for all.
        source: only this one's.
        outcome: accepted, duplicate, refused or failed.
        entity: only about this, as the application named it.
        message: only those with this message id.
        after: the cursor of the page before.
        where: since, until, limit.

    Raises FilterError when a filter or the cursor was refused.
    """
    return _control.list_received(
        connection_of(connection), whose(tenant), Filters(**where), source=source, outcome=outcome, entity=entity,
        message=message, after=after,
    )  # fmt: skip


def get(connection: Session | Connection, record_id: str | UUID, *, tenant: Tenant = "") -> ReceivedDetails:
    """Return one request, `inb_…`, with its headers and the body that was kept. Raises NotFoundError."""
    return _control.show_received(connection_of(connection), whose(tenant), record_id)


def forget(connection: Session | Connection, record_id: str | UUID, *, tenant: Tenant = "") -> bool:
    """Forget the message id of a request, so that the next copy is processed; False where it was not known.

    The caller commits; the audit notes it. Raises NotFoundError for a request of another tenant, or without an id.
    """
    return _control.forget_received(connection_of(connection, to_write=True), whose(tenant), record_id)
