"""By hand: make deliveries that wait due now, or cancel outstanding ones. First they are chosen, then it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control import audit
from outbox.control.deliveries import show_delivery
from outbox.control.filters import Filters
from outbox.control.store import by_hand as store
from outbox.control.store.sendable import SENDABLE
from outbox.control.tenancy import own
from outbox.errors import ByHandError
from outbox.ids import DeliveryId, SubscriptionId

__all__ = [
    "ByHandError", "Cancelled", "Retried", "cancel", "outstanding_by_filter", "outstanding_by_id", "retry_now",
    "waiting_by_filter", "waiting_by_id",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """What was made due, and for which subscriptions it waits on: paused, disabled, held back or failing ones."""

    deliveries: tuple[DeliveryId, ...]
    not_sendable: tuple[SubscriptionId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What was cancelled; of `leased` ones a relay may be sending a request, which may still arrive."""

    deliveries: tuple[DeliveryId, ...]
    subscriptions: tuple[SubscriptionId, ...]
    leased: tuple[DeliveryId, ...]


_OWN = own("s.tenant")
_STATES = text(f"""
select d.id, case when d.lease is not null and d.due_at > clock_timestamp() then 'leased'
                  when d.lease is not null then 'ended' when d.due_at = 'infinity' then 'parked'
                  when d.due_at > clock_timestamp() then 'waiting' else 'due' end as state
from outbox.deliveries d left join outbox.subscriptions s on s.id = d.subscription_id
where d.id = any(cast(:ids as uuid[])) and {_OWN}
""")  # noqa: S608 - the parts are constants
_NOT_WAITING = {
    "due": "is due already: a relay takes it in its turn, as soon as its subscription may be sent to",
    "leased": "is being sent now; its result decides what comes next",
    "ended": "was leased by a relay that did not report; a relay takes it again in its turn",
    "parked": "waits for the delivery before it with the same key; retry that one",
}


def waiting_by_id(connection: Connection, tenant: str | None, names: Sequence[UUID | str]) -> list[DeliveryId]:
    """Return the ids of these deliveries, each once, all of which wait for a retry or their time.

    Raises:
        NotFoundError: one is none of this tenant's.
        ByHandError: one does not wait; the message says what it does.
    """
    states = _states(connection, tenant, names)
    for uuid, state in states.items():
        if state in _NOT_WAITING:
            raise ByHandError(f"delivery: {uuid} {_NOT_WAITING[state]}")
    return list(states)


def outstanding_by_id(connection: Connection, tenant: str | None, names: Sequence[UUID | str]) -> list[DeliveryId]:
    """Return the ids of these deliveries, each once, all of which are outstanding. Raises as `waiting_by_id` does."""
    return list(_states(connection, tenant, names))


_DONE = {
    "dead": "is a dead letter: relay replay sends it again, relay dead-letters purge deletes it",
    "replayed_or_purged": "was a dead letter that was replayed or purged",
    "delivered": "is delivered; relay replay sends it once more",
    "cancelled": "is cancelled; relay replay sends it after all",
    "test": "is a test, which is no delivery",
}


def _states(connection: Connection, tenant: str | None, names: Sequence[UUID | str]) -> dict[DeliveryId, str]:
    wanted = list(dict.fromkeys(map(DeliveryId.of, names)))
    rows = connection.execute(_STATES, {"ids": wanted, "asking": tenant})
    found = {DeliveryId.of(row.id): row.state for row in rows}
    for uuid in wanted:
        if uuid not in found:
            state = show_delivery(connection, tenant, uuid).state
            raise ByHandError(f"delivery: {uuid} {_DONE.get(state, 'is on its way again; try once more')}")
    return {uuid: found[uuid] for uuid in wanted}


# What was never tried and is not due yet has a time of its own (available_at), which a filter does not break.
_WAITING = "d.lease is null and d.due_at > clock_timestamp() and d.due_at < 'infinity' and d.attempts > 0"


def waiting_by_filter(connection: Connection, tenant: str | None, filters: Filters) -> list[DeliveryId]:
    """Return the ids of deliveries that wait for a retry, those due first first, at most `filters.limit`.

    since and until are about when the event was recorded. Raises ByHandError where no filter is given.
    """
    return _by_filter(connection, tenant, filters, _WAITING)


def outstanding_by_filter(connection: Connection, tenant: str | None, filters: Filters) -> list[DeliveryId]:
    """Return the ids of outstanding deliveries in every state; else as `waiting_by_filter`."""
    return _by_filter(connection, tenant, filters, "true")


def _by_filter(connection: Connection, tenant: str | None, filters: Filters, condition: str) -> list[DeliveryId]:
    if filters.empty:
        raise ByHandError("filter: none given; give ids, or at least one of --since --until --type --subscription …")
    where, parameters = filters.where(
        {"at": "e.recorded_at", "type": "e.type", "tenant": "e.tenant", "key": "e.key",
         "subscription": "d.subscription_id"}
    )  # fmt: skip
    statement = text(f"""
select d.id from outbox.deliveries d
left join outbox.subscriptions s on s.id = d.subscription_id
left join outbox.events e on e.seq = d.event_seq
where {condition} and {where} and {_OWN} order by d.due_at, d.id limit :limit""")  # noqa: S608 - constants
    return list(map(DeliveryId.of, connection.execute(statement, parameters | {"asking": tenant}).scalars()))


_NOT_SENDABLE = text(f"""
select id from outbox.subscriptions where id = any(cast(:ids as uuid[])) and not ({SENDABLE}) order by id
""")  # noqa: S608 - the part is a constant


def retry_now(
    connection: Connection, tenant: str | None, delivery_ids: Sequence[UUID], filters: Filters | None = None
) -> Retried:
    """Make these due now, with the attempts that they have; what is leased or due by now is left. It is audited.

    Args:
        connection: in a transaction.
        tenant: who asks; None is the operator.
        delivery_ids: of `waiting_by_id` or `waiting_by_filter`.
        filters: what found them, for the audit.

    Raises:
        NotFoundError: one is another tenant's; nothing was changed.
    """
    _refuse_others(connection, tenant, delivery_ids)
    made = store.make_due(connection, delivery_ids)
    subscriptions = list(dict.fromkeys(row.subscription_id for row in made))
    _note(connection, "retried", [row.id for row in made], subscriptions, filters)
    not_sendable = connection.execute(_NOT_SENDABLE, {"ids": subscriptions}).scalars()
    return Retried(
        deliveries=tuple(DeliveryId.of(row.id) for row in made),
        not_sendable=tuple(map(SubscriptionId.of, not_sendable)),
    )


def cancel(
    connection: Connection, tenant: str | None, delivery_ids: Sequence[UUID], filters: Filters | None = None
) -> Cancelled:
    """Cancel these for good: they are not sent any more, and counted as cancelled. It is audited.

    A request that is on its way may still arrive. Its success is logged, and then that is what the delivery is; its
    failure changes nothing. Arguments and errors are those of `retry_now`.
    """
    _refuse_others(connection, tenant, delivery_ids)
    gone = store.cancel(connection, delivery_ids)
    subscriptions = list(dict.fromkeys(row.subscription_id for row in gone))
    _note(connection, "cancelled", [row.id for row in gone], subscriptions, filters)
    return Cancelled(
        deliveries=tuple(DeliveryId.of(row.id) for row in gone),
        subscriptions=tuple(map(SubscriptionId.of, subscriptions)),
        leased=tuple(DeliveryId.of(row.id) for row in gone if row.leased),
    )


def _refuse_others(connection: Connection, tenant: str | None, delivery_ids: Sequence[UUID]) -> None:
    """Raise NotFoundError for what is not the tenant's; what was its own and is done meanwhile is left to the store."""
    if tenant is None:
        return
    outstanding = set(connection.execute(_STATES, {"ids": list(delivery_ids), "asking": tenant}).scalars())
    for uuid in delivery_ids:
        if uuid not in outstanding:
            show_delivery(connection, tenant, uuid)


_TENANTS = text("select distinct tenant from outbox.subscriptions where id = any(cast(:ids as uuid[]))")


def _note(
    connection: Connection, action: str, ids: Iterable[UUID], subscriptions: Sequence[UUID], filters: Filters | None
) -> None:
    """Note it, about the one delivery or the one subscription where there is one."""
    names: list[Any] = [DeliveryId.of(uuid) for uuid in ids]
    tenants = connection.execute(_TENANTS, {"ids": list(subscriptions)}).scalars()
    subject = names[0] if len(names) == 1 else SubscriptionId.of(subscriptions[0]) if len(subscriptions) == 1 else None
    audit.note(connection, action, count=len(names), ids=names, subject=subject, tenants=tenants, filters=filters)
