"""Requests that the application received from others: the list, one of them, and forgetting that it was taken.

outbox.inbox writes them (0030_inbox.sql). No secret and no signature is kept with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import Connection, text

from outbox._text import brief
from outbox.control import audit
from outbox.control.filters import FilterError, Filters, refuse_what_is_no_text
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import own
from outbox.errors import NotFoundError
from outbox.ids import InboxId

__all__ = [
    "OUTCOMES",
    "ReceivedDetails",
    "ReceivedOutcome",
    "ReceivedRequest",
    "StoredRequest",
    "forget_received",
    "list_received",
    "read_stored",
    "show_received",
]

ReceivedOutcome = Literal["accepted", "duplicate", "refused", "failed"]
OUTCOMES: tuple[ReceivedOutcome, ...] = get_args(ReceivedOutcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request. `status` is what was answered, None where nobody noted it; `size` is the body's, in bytes.

    `unrecorded`: so many refused requests of the same process before this one have no row of their own.
    """

    id: InboxId
    at: datetime
    tenant: str
    source: str
    message_id: str | None
    outcome: ReceivedOutcome
    reason: str | None
    status: int | None
    milliseconds: int | None
    entity: str | None
    error: str | None
    size: int
    unrecorded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedDetails(ReceivedRequest):
    """The same, with what came. `body` is what was kept of it, as text; None where nothing was.

    `whole`: the kept body has every byte. `known`: its message id is known now, so that a copy would be a duplicate.
    """

    scheme: str | None
    sent_at: datetime | None
    method: str | None
    path: str | None
    headers: tuple[tuple[str, str], ...]
    body: str | None
    whole: bool
    known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRequest:
    """What is kept of a request, to send it again: every byte of its body, and the headers that are known harmless."""

    id: InboxId
    message_id: str
    scheme: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


_COLUMNS = (
    "i.id, i.at, i.tenant, i.source, i.message_id, i.outcome, i.reason, i.status, i.milliseconds, i.entity, i.error,"
    " i.size, i.unrecorded"
)
_LISTING = Listing(
    name="inbox",
    columns={"at": "i.at", "tenant": "i.tenant"},
    own=own("i.tenant"),
    keys=(Key("i.at", "at", "timestamptz", descending=True), Key("i.id", "id", "uuid", descending=True)),
)
_SHOW = text(f"""
select {_COLUMNS}, i.scheme, i.sent_at, i.method, i.path, i.headers, i.body,
       coalesce(octet_length(i.body), 0) = i.size as whole,
       exists (select from outbox.inbox_ids d where (d.tenant, d.source, d.message_id)
                                                    = (i.tenant, i.source, i.message_id)) as known
from outbox.inbox i where i.id = :id and {own("i.tenant")}
""")  # noqa: S608 - constants
_FORGET = text("delete from outbox.inbox_ids where tenant = :tenant and source = :source and message_id = :message_id")


def list_received(
    connection: Connection,
    tenant: str | None,
    filters: Filters,
    *,
    source: str | None = None,
    outcome: str | None = None,
    entity: str | None = None,
    message: str | None = None,
    after: str | None = None,
) -> Page[ReceivedRequest]:
    """Return what was received, newest first, `filters.limit` a page.

    Args:
        connection: to the database.
        tenant: who asks; None is the operator.
        filters: since, until, tenant, limit.
        source: only from this source.
        outcome: one of OUTCOMES.
        entity: only about this.
        message: only with this message id.
        after: the cursor of the page before.

    Raises:
        FilterError: a filter or the cursor was refused.
    """
    if outcome is not None and outcome not in OUTCOMES:
        raise FilterError(f"outcome: {brief(outcome)} is not one of {', '.join(OUTCOMES)}")
    where, parameters = _LISTING.where(tenant, filters, after)
    for name, column, value in (
        ("source", "source", source),
        ("outcome", "outcome", outcome),
        ("entity", "entity", entity),
        ("message", "message_id", message),
    ):
        refuse_what_is_no_text(name, value)
        if value is not None:
            where += f" and i.{column} = :{name}"
            parameters[name] = value
    statement = text(
        f"select {_COLUMNS} from outbox.inbox i where {where} {_LISTING.order_by} limit :limit"  # noqa: S608 - bound
    )
    return _LISTING.page(connection.execute(statement, parameters).all(), filters.limit, _request)


def show_received(connection: Connection, tenant: str | None, received_id: UUID | str) -> ReceivedDetails:
    """Return one request with what came. Raises NotFoundError when there is none of this tenant."""
    row = _read(connection, tenant, received_id)
    shown = None if row.body is None else bytes(row.body).decode("utf-8", "backslashreplace")
    headers = tuple((name, value) for name, value in json.loads(row.headers))
    return ReceivedDetails(
        **dict(row._mapping) | {"id": InboxId.of(row.id), "headers": headers, "body": shown}  # noqa: SLF001
    )


def read_stored(connection: Connection, tenant: str | None, received_id: UUID | str) -> StoredRequest:
    """Return what is kept of a request, to send it again.

    Raises NotFoundError when there is no such request of this tenant, or not all of it was kept.
    """
    row = _read(connection, tenant, received_id)
    if row.message_id is None or not row.whole or (row.body is None and row.size > 0):
        kept = "it was refused" if row.message_id is None else f"{len(row.body or b'')} of {row.size} bytes were kept"
        raise NotFoundError(f"received: of {InboxId.of(row.id)} there is no whole body to send again: {kept}")
    return StoredRequest(
        id=InboxId.of(row.id), message_id=row.message_id, scheme=row.scheme or "standard",
        headers=tuple((name, value) for name, value in json.loads(row.headers)), body=bytes(row.body or b""),
    )  # fmt: skip


def forget_received(connection: Connection, tenant: str | None, received_id: UUID | str) -> bool:
    """Forget the message id of this request, so that the next copy is processed; tell whether it was known.

    The caller commits; the audit notes what was forgotten as replayed. Raises NotFoundError when there is no such
    request of this tenant, or it was refused before it had an id.
    """
    row = _read(connection, tenant, received_id)
    if row.message_id is None:
        raise NotFoundError(f"received: {InboxId.of(row.id)} was refused before it had a message id: nothing was taken")
    named = {"tenant": row.tenant, "source": row.source, "message_id": row.message_id}
    known = connection.execute(_FORGET, named).rowcount == 1
    audit.note(
        connection, "replayed", count=int(known), ids=[InboxId.of(row.id)], tenants=[row.tenant],
        more={"source": row.source, "message_id": row.message_id},
    )  # fmt: skip
    return known


def _read(connection: Connection, tenant: str | None, received_id: UUID | str) -> Any:
    uuid = InboxId.of(received_id, "received_id")
    row = connection.execute(_SHOW, {"id": uuid, "asking": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"received: no {uuid}; never received here, or past inbox_days")
    return row


def _request(row: Any) -> ReceivedRequest:
    return ReceivedRequest(**dict(row._mapping) | {"id": InboxId.of(row.id)})  # noqa: SLF001
