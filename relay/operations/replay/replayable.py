"""What may be replayed: dead letters and what was delivered, named by ids or by filters, and not on its way again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.errors import NotFoundError, OutboxError
from outbox.ids import DeliveryId, EventId, SubscriptionId
from relay.operations import dead_letters
from relay.operations.tenancy import own
from relay.store.replay import find_on_their_way

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from relay.operations.filters import Filters

__all__ = [
    "Candidate", "ReplayError", "candidates_by_filter", "candidates_by_id", "columns_of",
    "refuse_other_tenants", "unknown_subscription",
]  # fmt: skip


class ReplayError(OutboxError):
    """A replay was refused; nothing was changed. The message says why."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a replay would put back: an event for a subscription (None: to be resolved again).

    `dead` is the delivery id of the dead letter that it takes with it, None where there is none.
    """

    event_seq: int
    subscription_id: SubscriptionId | None
    dead: DeliveryId | None


def candidates_by_id(
    connection: Connection, tenant: str | None, name: DeliveryId | EventId | str, to: UUID | str | None = None
) -> list[Candidate]:
    """Return what `dlv_…` or `evt_…` stands for: of an event, every subscription that it went to or died for.

    With `to` it is the event for that subscription alone. Subscriptions that it is on its way to are left out.

    Raises:
        NotFoundError: no such delivery or event of this tenant.
        ReplayError: it is still on its way, to all of them.
    """
    is_event = str(name).startswith("evt_")
    found = _of_event(connection, tenant, name) if is_event else _of_delivery(connection, tenant, name)
    found = found if to is None else _redirected(found, SubscriptionId.of(to))
    idle = _idle(connection, found)
    if not idle:
        raise ReplayError(f"replay: {name} is still on its way; see `relay deliveries list --state waiting`")
    return idle


def candidates_by_filter(
    connection: Connection,
    tenant: str | None,
    filters: Filters,
    *,
    delivered: bool = False,
    to: UUID | str | None = None,
) -> list[Candidate]:
    """Return the dead letters that pass the filters, or the delivered ones; at most `filters.limit`, oldest first.

    What is on its way again is left out.
    """
    if filters.empty:
        raise ReplayError("filter: none given; give ids, or at least one of --since --until --type --subscription …")
    if delivered:
        found = _delivered(connection, tenant, filters)
    else:
        found = _dead(connection, dead_letters.find(connection, tenant, filters))
    return _idle(connection, found if to is None else _redirected(found, SubscriptionId.of(to)))


def _idle(connection: Connection, found: Sequence[Candidate]) -> list[Candidate]:
    """Leave out what has a delivery on its way: to that subscription, or where none is named, to any."""
    pairs = find_on_their_way(connection, [item.event_seq for item in found])
    taken = {*pairs, *((seq, None) for seq, _ in pairs)}
    return [item for item in found if (item.event_seq, item.subscription_id) not in taken]


def columns_of(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return the candidates as the arrays that statements take."""
    return {
        "seqs": [item.event_seq for item in candidates],
        "subscription_ids": [item.subscription_id for item in candidates],
        "dead": [item.dead for item in candidates],
    }


def _redirected(found: Sequence[Candidate], subscription_id: SubscriptionId) -> list[Candidate]:
    """Return one candidate an event for this subscription; dead letters of others stay where they are."""
    own = {item.event_seq: item.dead for item in found if item.subscription_id == subscription_id}
    seqs = dict.fromkeys(item.event_seq for item in found)
    return [Candidate(seq, subscription_id, own.get(seq)) for seq in seqs]


_OWN = """
select c.seq, c.subscription_id, c.dead
from unnest(cast(:seqs as bigint[]), cast(:subscription_ids as uuid[]), cast(:dead as uuid[])) with ordinality
    c(seq, subscription_id, dead, place)
left join outbox.subscriptions s on s.id = c.subscription_id
where (s.id is null or s.tenant = :asking)
  and (exists (select from outbox.events
               where seq = c.seq and seq = any(cast(:seqs as bigint[])) and tenant = :asking)
       or exists (select from outbox.dead_letters where event_seq = c.seq and tenant = :asking))
order by c.place
"""


def _own(connection: Connection, tenant: str | None, found: Sequence[Candidate]) -> list[Candidate]:
    """Leave out what is of another tenant's event, or for another tenant's subscription."""
    if tenant is None:
        return list(found)
    rows = connection.execute(text(_OWN), columns_of(found) | {"asking": tenant})
    return [_candidate(row.seq, row.subscription_id, row.dead) for row in rows]


def _candidate(seq: int, subscription_id: UUID | None, dead: UUID | None = None) -> Candidate:
    return Candidate(seq, SubscriptionId.maybe(subscription_id), DeliveryId.maybe(dead))


def refuse_other_tenants(connection: Connection, tenant: str | None, candidates: Sequence[Candidate]) -> None:
    """Raise an error where a candidate is another tenant's, the same as for what never existed."""
    others = set(candidates) - set(_own(connection, tenant, candidates))
    for item in others:
        if item.subscription_id is not None:
            raise unknown_subscription(item.subscription_id)
        raise NotFoundError(f"event: no number {item.event_seq}; never recorded, or pruned after its retention")


def unknown_subscription(subscription_id: SubscriptionId) -> ReplayError:
    """Return the error for a subscription that does not exist."""
    return ReplayError(f"subscription: no {subscription_id}; never made, or removed: name another with --to sub_…")


def _of_delivery(connection: Connection, tenant: str | None, name: UUID | str) -> list[Candidate]:
    uuid = DeliveryId.of(name)
    found = _own(connection, tenant, _dead(connection, [uuid]))
    if found:
        return found
    row = connection.execute(text(_DONE), {"id": uuid}).one_or_none()
    done = [] if row is None else _own(connection, tenant, [_candidate(row.event_seq, row.subscription_id)])
    if row is None or not done:
        raise NotFoundError(f"delivery: no {uuid}; never made, cancelled, or past its retention")
    if row.outstanding:
        raise ReplayError(f"delivery: {uuid} is still on its way; see `relay deliveries show`")
    return done


_DONE = """
select event_seq, subscription_id, true as outstanding from outbox.deliveries where id = :id
union all
(select event_seq, subscription_id, false from outbox.attempts
 where delivery_id = :id and verdict in ('delivered', 'dead') limit 1)
limit 1
"""


def _of_event(connection: Connection, tenant: str | None, name: UUID | str) -> list[Candidate]:
    uuid = EventId.of(name)
    seq = connection.execute(text(_SEQ), {"id": uuid, "asking": tenant}).scalar_one_or_none()
    if seq is None:
        raise NotFoundError(f"event: no {uuid}; never recorded, or pruned after its retention")
    dead = _dead(connection, list(connection.execute(text(_DEAD_OF), {"seq": seq}).scalars()))
    buried = {item.subscription_id for item in dead}
    delivered = [
        _candidate(seq, subscription_id)
        for subscription_id in connection.execute(text(_DELIVERED_OF), {"seq": seq}).scalars()
        if subscription_id not in buried
    ]
    return _own(connection, tenant, dead + delivered) or [Candidate(seq, None, None)]


_SEQ = f"""
select seq from outbox.events where id = :id and {own("tenant")}
union all (select event_seq from outbox.dead_letters where event_id = :id and {own("tenant")} limit 1) limit 1
"""  # noqa: S608 - constants
_DEAD_OF = "select delivery_id from outbox.dead_letters where event_seq = :seq"
_DELIVERED_OF = """
select distinct subscription_id from outbox.attempts where event_seq = :seq and verdict = 'delivered'
"""


def _dead(connection: Connection, ids: Sequence[UUID]) -> list[Candidate]:
    rows = connection.execute(
        text("""
select event_seq, subscription_id, delivery_id from outbox.dead_letters
where delivery_id = any(cast(:ids as uuid[])) order by died_at, delivery_id"""),
        {"ids": list(ids)},
    )
    return [_candidate(row.event_seq, row.subscription_id, row.delivery_id) for row in rows]


def _delivered(connection: Connection, tenant: str | None, filters: Filters) -> list[Candidate]:
    where, parameters = filters.where(
        {"at": "a.at", "type": "e.type", "tenant": "e.tenant", "key": "e.key", "subscription": "a.subscription_id"}
    )
    statement = f"""
select a.event_seq, a.subscription_id from outbox.attempts a join outbox.events e on e.seq = a.event_seq
left join outbox.subscriptions s on s.id = a.subscription_id
where a.verdict = 'delivered' and {where} and {own("s.tenant")} group by 1, 2 order by 1, 2 limit :limit"""  # noqa: S608 - constants
    rows = connection.execute(text(statement), parameters | {"asking": tenant})
    return [_candidate(row.event_seq, row.subscription_id) for row in rows]
