"""What may be replayed: dead letters and what was delivered, named by ids or by filters, and not on its way again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control import dead_letters
from outbox.control.filters import Filters
from outbox.control.store.replay import find_ended, find_matching, find_on_their_way, find_pending
from outbox.control.tenancy import own
from outbox.errors import NotFoundError, ReplayError
from outbox.ids import DeliveryId, EventId, SubscriptionId

__all__ = [
    "Candidate", "Matching", "ReplayError", "candidates_by_filter", "candidates_by_id", "columns_of", "count_by_filter",
    "refuse_other_tenants", "unknown_subscription",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a replay would put back: an event for a subscription (None: to be resolved again).

    dead: the delivery id of the dead letter that it takes with it, None where there is none. besides: one delivery more
    also where another is on its way, since it has ended once.
    """

    event_seq: int
    subscription_id: SubscriptionId | None
    dead: DeliveryId | None
    besides: bool = False


def candidates_by_id(
    connection: Connection,
    tenant: str | None,
    name: DeliveryId | EventId | str,
    to: UUID | str | None = None,
    *,
    to_all: bool = False,
) -> list[Candidate]:
    """Return what `dlv_…` or `evt_…` stands for: of an event, every subscription for which a delivery of it ended.

    With `to` it is the event for that subscription alone, with `to_all` for every one that it matches now. What has
    ended is replayed as often as it is asked, also while a replay before is on its way. A subscription to which it is
    on its way, and has never ended, is left out.

    Raises:
        NotFoundError: no such delivery or event of this tenant.
        ReplayError: it is still on its way, to all of them, or it matches nobody.
    """
    is_event = str(name).startswith("evt_")
    found = _of_event(connection, tenant, name) if is_event else _of_delivery(connection, tenant, name)
    if to_all:
        found = _matching(connection, tenant, found)
    found = found if to is None else _redirected(found, SubscriptionId.of(to))
    left = _idle(connection, _once_more(connection, found))
    if not left:
        raise ReplayError(f"replay: {name} is still on its way; relay deliveries retry makes what waits due now")
    return left


def candidates_by_filter(
    connection: Connection,
    tenant: str | None,
    filters: Filters,
    *,
    state: Literal["dead", "delivered", "cancelled"] = "dead",
    to: UUID | str | None = None,
) -> list[Candidate]:
    """Return the dead letters that pass the filters, or what was delivered or cancelled; the oldest first.

    At most `filters.limit`. What is on its way again is left out, so that a large replay can be asked for again.
    """
    if filters.empty:
        raise ReplayError("filter: none given; give ids, or at least one of --since --until --type --subscription …")
    if state == "dead":
        found = _dead(connection, dead_letters.find(connection, tenant, filters))
    else:
        found = _done(connection, tenant, filters, state)
    return _idle(connection, found if to is None else _redirected(found, SubscriptionId.of(to)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """How many rows pass a filter, on their way again or not; `exact` is false where there are so many or more."""

    count: int
    exact: bool


COUNTED = 100_000


def count_by_filter(
    connection: Connection,
    tenant: str | None,
    filters: Filters,
    *,
    state: Literal["dead", "delivered", "cancelled"] = "dead",
) -> Matching:
    """Count what passes the filters, whatever their limit, exactly up to 100,000: what `candidates_by_filter` is of."""
    if state == "dead":
        found = dead_letters.count(connection, tenant, filters, up_to=COUNTED)
    else:
        statement, parameters = _done_statement(tenant, filters, state)
        counting = text(f"select count(*) from ({statement}) counted")  # noqa: S608 - constants
        found = connection.execute(counting, parameters | {"limit": COUNTED}).scalar_one()
    return Matching(count=found, exact=found < COUNTED)


def _once_more(connection: Connection, found: Sequence[Candidate]) -> list[Candidate]:
    """Mark what has ended once: a replay of it is one more, whatever is on its way."""
    asked = [item.event_seq for item in found if item.dead is None]  # a dead letter tells by itself
    ended = find_ended(connection, asked) if asked else set()
    return [replace(item, besides=_is_dead(item) or (item.event_seq, item.subscription_id) in ended) for item in found]


def _is_dead(item: Candidate) -> bool:
    return item.dead is not None and item.subscription_id is not None


def _idle(connection: Connection, found: Sequence[Candidate]) -> list[Candidate]:
    """Leave out what has a delivery on its way: to that subscription, or where none is named, to any.

    An event that is not resolved yet is on its way to all of them: it would go twice, and before others of its key.
    """
    seqs = [item.event_seq for item in found]
    pairs, pending = find_on_their_way(connection, seqs), find_pending(connection, seqs)
    taken = {*pairs, *((seq, None) for seq, _ in pairs)}
    return [
        item
        for item in found
        if item.event_seq not in pending and (item.besides or (item.event_seq, item.subscription_id) not in taken)
    ]


def columns_of(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return the candidates as the arrays that statements take."""
    return {
        "seqs": [item.event_seq for item in candidates],
        "subscription_ids": [item.subscription_id for item in candidates],
        "dead": [item.dead for item in candidates],
        "besides": [item.besides for item in candidates],
    }


def _redirected(found: Sequence[Candidate], subscription_id: SubscriptionId) -> list[Candidate]:
    """Return one candidate an event for this subscription; dead letters of others stay where they are."""
    own = {item.event_seq: item.dead for item in found if item.subscription_id == subscription_id}
    seqs = dict.fromkeys(item.event_seq for item in found)
    return [Candidate(seq, subscription_id, own.get(seq)) for seq in seqs]


def _matching(connection: Connection, tenant: str | None, found: Sequence[Candidate]) -> list[Candidate]:
    """Return one candidate for each subscription that these events match now, of this tenant."""
    own = {(item.event_seq, item.subscription_id): item.dead for item in found}
    pairs = find_matching(connection, list({item.event_seq for item in found}))
    named = [Candidate(seq, SubscriptionId.of(uuid), own.get((seq, SubscriptionId.of(uuid)))) for seq, uuid in pairs]
    matching = _own(connection, tenant, named)
    if not matching:
        raise ReplayError("event: matches no subscription now; subscribe first, or name one with --to sub_…")
    return matching


_OWN = """
select c.place
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
    places = connection.execute(text(_OWN), columns_of(found) | {"asking": tenant}).scalars()
    return [found[place - 1] for place in places]


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
    row = connection.execute(text(_OUTSTANDING_OR_DONE), {"id": uuid}).one_or_none()
    done = [] if row is None else _own(connection, tenant, [_candidate(row.event_seq, row.subscription_id)])
    if row is None or not done:
        raise NotFoundError(f"delivery: no {uuid}; never made, cancelled, or past its retention")
    if row.outstanding:
        raise ReplayError(f"delivery: {uuid} is still on its way; relay deliveries retry makes it due now")
    return done


_OUTSTANDING_OR_DONE = """
select event_seq, subscription_id, true as outstanding from outbox.deliveries where id = :id
union all
(select event_seq, subscription_id, false from outbox.attempts
 where delivery_id = :id and verdict in ('delivered', 'dead', 'cancelled') limit 1)
limit 1
"""


def _of_event(connection: Connection, tenant: str | None, name: UUID | str) -> list[Candidate]:
    uuid = EventId.of(name)
    seq = connection.execute(text(_SEQ), {"id": uuid, "asking": tenant}).scalar_one_or_none()
    if seq is None:
        raise NotFoundError(f"event: no {uuid}; never recorded, or pruned after its retention")
    dead = _dead(connection, list(connection.execute(text(_DEAD_OF), {"seq": seq}).scalars()))
    buried = {item.subscription_id for item in dead}
    done = [
        _candidate(seq, subscription_id)
        for subscription_id in connection.execute(text(_DONE_OF), {"seq": seq}).scalars()
        if subscription_id not in buried
    ]
    return _own(connection, tenant, dead + done) or [Candidate(seq, None, None)]


_SEQ = f"""
select seq from outbox.events where id = :id and {own("tenant")}
union all (select event_seq from outbox.dead_letters where event_id = :id and {own("tenant")} limit 1) limit 1
"""  # noqa: S608 - constants
_DEAD_OF = "select delivery_id from outbox.dead_letters where event_seq = :seq"
_DONE_OF = """
select distinct subscription_id from outbox.attempts
where event_seq = :seq and verdict in ('delivered', 'cancelled')
"""


def _dead(connection: Connection, ids: Sequence[UUID]) -> list[Candidate]:
    rows = connection.execute(
        text("""
select event_seq, subscription_id, delivery_id from outbox.dead_letters
where delivery_id = any(cast(:ids as uuid[])) order by died_at, delivery_id"""),
        {"ids": list(ids)},
    )
    return [_candidate(row.event_seq, row.subscription_id, row.delivery_id) for row in rows]


def _done(connection: Connection, tenant: str | None, filters: Filters, verdict: str) -> list[Candidate]:
    statement, parameters = _done_statement(tenant, filters, verdict)
    return [_candidate(row.event_seq, row.subscription_id) for row in connection.execute(text(statement), parameters)]


# A request that was on its way when it was cancelled may have arrived.
_ARRIVED = """and not exists (
    select from outbox.attempts b where b.delivery_id = a.delivery_id and b.verdict = 'delivered')"""


def _done_statement(tenant: str | None, filters: Filters, verdict: str) -> tuple[str, dict[str, Any]]:
    where, parameters = filters.where(
        {"at": "a.at", "type": "e.type", "tenant": "e.tenant", "key": "e.key", "subscription": "a.subscription_id"}
    )
    arrived = _ARRIVED if verdict == "cancelled" else ""
    statement = f"""
select a.event_seq, a.subscription_id from outbox.attempts a join outbox.events e on e.seq = a.event_seq
left join outbox.subscriptions s on s.id = a.subscription_id
where a.verdict = :verdict and {where} and {own("s.tenant")} {arrived} group by 1, 2 order by 1, 2 limit :limit"""  # noqa: S608 - constants
    return statement, parameters | {"asking": tenant, "verdict": verdict}
