"""Dead letters: what was given up, with the reason and a payload of its own. They leave by replay or purge only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control import audit
from outbox.control.attempts import PAGE_ROWS, Attempt, attempts_of_delivery
from outbox.control.filters import SEQ_OF_EVENT, Filters, bound_of
from outbox.control.pages import Key, Listing, Page
from outbox.control.store import dead_letters as store
from outbox.control.tenancy import OWN_DEAD_LETTER
from outbox.control.walk import Walk
from outbox.errors import NotFoundError
from outbox.ids import DeliveryId, EventId, SubscriptionId

__all__ = [
    "DeadDelivery",
    "DeadLetterDetails",
    "ListedDeadLetter",
    "count",
    "dead_of_event",
    "find",
    "find_by_id",
    "list_dead_letters",
    "purge",
    "show_dead_letter",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDeadLetter:
    """A delivery that was given up, and why; `subscription_id` is None where its event could not be resolved."""

    id: DeliveryId
    event_id: EventId
    subscription_id: SubscriptionId | None
    url: str | None
    type: str
    tenant: str
    key: str | None
    recorded_at: datetime
    died_at: datetime
    attempts: int
    reason: str
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterDetails(ListedDeadLetter):
    """A dead letter with its attempts and its payload, which is JSON text; None where the server could not read it."""

    attempts_made: Page[Attempt]
    payload: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadDelivery:
    """A dead letter of an event that is known."""

    delivery_id: DeliveryId
    subscription_id: SubscriptionId | None
    attempts: int
    died_at: datetime
    reason: str
    error: str | None


_LISTING = Listing(
    name="dead_letters",
    columns={
        "at": "l.died_at", "type": "l.type", "tenant": "l.tenant", "key": "l.key", "subscription": "l.subscription_id",
    },
    own=OWN_DEAD_LETTER,
    keys=(Key("l.died_at", "died_at", "timestamptz", descending=True), Key("l.delivery_id", "delivery_id", "uuid")),
)  # fmt: skip

_TEXT = """(strpos(w.error, :text) > 0 or exists (
    select from outbox.dead_letters p
    where p.delivery_id = w.delivery_id and strpos(substr(p.payload, 1, 65536), :text) > 0))"""
_WALK = Walk(
    listing=Listing(
        name="dead_letters",
        columns={"at": "w.died_at", "type": "w.type", "tenant": "w.tenant", "key": "w.key",
                 "subscription": "w.subscription_id", "event": "w.event_seq", "text": _TEXT},
        own=OWN_DEAD_LETTER.replace("l.", "w."),
        keys=(Key("w.died_at", "died_at", "timestamptz", descending=True),
              Key("w.delivery_id", "delivery_id", "uuid", descending=True)),
    ),
    table="outbox.dead_letters",
    time="died_at",
    columns="""delivery_id, event_seq, event_id, subscription_id, type, tenant, key, recorded_at, attempts, died_at,
               reason, error""",
    branch="subscription_id",
    joins="left join outbox.subscriptions s on s.id = w.subscription_id",
    found="w.*, s.shown_url as url",
)  # fmt: skip
LOOKED = 10_000
"""How many dead letters one page looks at, at most."""
LOOKED_FOR_TEXT = 1_000
"""The same where text is looked for: the first 64 KiB of payloads are read."""

_FROM = "from outbox.dead_letters l left join outbox.subscriptions s on s.id = l.subscription_id"
_SELECT = f"""
select l.delivery_id, l.event_id, l.subscription_id, s.shown_url as url, l.type, l.tenant, l.key,
       l.recorded_at, l.attempts, l.died_at, l.reason, l.error, l.payload
{_FROM}
"""


def list_dead_letters(
    connection: Connection, tenant: str | None, filters: Filters, *, after: str | None = None
) -> Page[ListedDeadLetter]:
    """Return the newest dead letters that pass the filters; since and until are about when they died."""
    where, parameters = _WALK.listing.where(tenant, filters, after)
    along = [_WALK.listing.beyond] if after is not None else []
    along += [bound_of(name, "w.died_at", filters) for name in ("since", "until") if getattr(filters, name) is not None]
    asks = tenant is not None or bool(set(filters.given()) - {"since", "until", "subscription"})
    return _WALK.page(
        connection,
        along=" and ".join(along) or "true",
        passing=where,
        parameters=parameters,
        branches=None if filters.subscription is None else [filters.given()["subscription"]],
        looked=LOOKED_FOR_TEXT if filters.text is not None else LOOKED if asks else filters.limit + 1,
        make=_listed,
        table=None
        if filters.event is None
        else f"""(
            select * from outbox.dead_letters where event_seq = ({SEQ_OF_EVENT}) offset 0)""",  # noqa: S608
    )


def show_dead_letter(connection: Connection, tenant: str | None, delivery_id: UUID | str) -> DeadLetterDetails:
    """Return one dead letter with its payload and attempts. Raises NotFoundError."""
    uuid = DeliveryId.of(delivery_id)
    statement = text(f"{_SELECT} where l.delivery_id = :id and {OWN_DEAD_LETTER}")
    row = connection.execute(statement, {"id": uuid, "asking": tenant}).one_or_none()
    if row is None:
        raise _not_found(uuid)
    attempts = attempts_of_delivery(connection, tenant, uuid)
    return DeadLetterDetails(**_fields(row), attempts_made=attempts, payload=row.payload)


def _not_found(uuid: DeliveryId) -> NotFoundError:
    return NotFoundError(f"dead letter: no {uuid}; replayed, purged, or never died")


_FIND_BY_ID = text(f"""
select l.delivery_id {_FROM} where l.delivery_id = any(cast(:ids as uuid[])) and {OWN_DEAD_LETTER}
""")


def find_by_id(connection: Connection, tenant: str | None, names: Sequence[UUID | str]) -> list[DeliveryId]:
    """Return the ids of these dead letters, each once. Raises NotFoundError where one is none."""
    wanted = list(dict.fromkeys(map(DeliveryId.of, names)))
    found = set(connection.execute(_FIND_BY_ID, {"ids": wanted, "asking": tenant}).scalars())
    for uuid in wanted:
        if uuid not in found:
            raise _not_found(uuid)
    return wanted


def find(connection: Connection, tenant: str | None, filters: Filters) -> list[DeliveryId]:
    """Return the ids of the oldest dead letters that pass the filters, at most `filters.limit`."""
    where, parameters = _LISTING.where(tenant, filters, None)
    statement = text(f"select l.delivery_id {_FROM} where {where} order by l.died_at, l.delivery_id limit :limit")
    found = connection.execute(statement, parameters | {"limit": filters.limit}).scalars()
    return list(map(DeliveryId.of, found))


def count(connection: Connection, tenant: str | None, filters: Filters, *, up_to: int) -> int:
    """Return how many dead letters pass the filters, counted up to so many; `filters.limit` does not matter."""
    where, parameters = _LISTING.where(tenant, filters, None)
    statement = text(f"select count(*) from (select {_FROM} where {where} limit :limit) counted")  # noqa: S608 - constants
    found: int = connection.execute(statement, parameters | {"limit": up_to}).scalar_one()
    return found


def purge(
    connection: Connection, tenant: str | None, delivery_ids: Sequence[UUID], filters: Filters | None = None
) -> int:
    """Delete these dead letters for good and return how many there were; `filters` found them, for the audit.

    Raises NotFoundError, before any is deleted, where a tenant names one that is not its own.
    """
    if tenant is not None:
        find_by_id(connection, tenant, delivery_ids)
    gone = store.purge(connection, delivery_ids)
    audit.note(
        connection, "purged", count=len(gone), ids=(DeliveryId.of(delivery_id) for delivery_id, _ in gone),
        tenants=(tenant for _, tenant in gone), filters=filters,
    )  # fmt: skip
    return len(gone)


def _listed(row: Any) -> ListedDeadLetter:
    return ListedDeadLetter(**_fields(row))


def _fields(row: Any) -> dict[str, Any]:
    return {
        "id": DeliveryId.of(row.delivery_id),
        "event_id": EventId.of(row.event_id),
        "subscription_id": SubscriptionId.maybe(row.subscription_id),
        "url": row.url,
        "type": row.type,
        "tenant": row.tenant,
        "key": row.key,
        "recorded_at": row.recorded_at,
        "died_at": row.died_at,
        "attempts": row.attempts,
        "reason": row.reason,
        "error": row.error,
    }


_OF_EVENT_LISTING = Listing(
    name="dead_of_event",
    columns={},
    own=OWN_DEAD_LETTER,
    keys=(Key("l.died_at", "died_at", "timestamptz"), Key("l.delivery_id", "delivery_id", "uuid")),
)
_OF_EVENT = """
select l.delivery_id, l.subscription_id, l.attempts, l.died_at, l.reason, l.error
from outbox.dead_letters l left join outbox.subscriptions s on s.id = l.subscription_id
"""


def dead_of_event(
    connection: Connection, tenant: str | None, event_id: UUID | str, *, after: str | None = None
) -> Page[DeadDelivery]:
    """Return the dead letters of one event, the oldest first, a thousand a page."""
    where, parameters = _OF_EVENT_LISTING.where(tenant, Filters(limit=PAGE_ROWS), after)
    statement = (
        f"{_OF_EVENT} where l.event_seq = ({SEQ_OF_EVENT}) and {where} {_OF_EVENT_LISTING.order_by} limit :limit"
    )
    rows = connection.execute(text(statement), {**parameters, "event_id": EventId.of(event_id)}).all()
    return _OF_EVENT_LISTING.page(rows, PAGE_ROWS, _of_event)


def _of_event(row: Any) -> DeadDelivery:
    return DeadDelivery(
        delivery_id=DeliveryId.of(row.delivery_id),
        subscription_id=SubscriptionId.maybe(row.subscription_id),
        attempts=row.attempts,
        died_at=row.died_at,
        reason=row.reason,
        error=row.error,
    )
