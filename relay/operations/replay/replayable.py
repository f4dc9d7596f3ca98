"""What may be replayed: dead letters and what was delivered, named by ids or by filters, and not on its way again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.errors import NotFoundError, OutboxError
from outbox.ids import parse_id, text_id
from relay.operations import dead_letters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from relay.operations.filters import Filters

__all__ = ["ON_THEIR_WAY", "Candidate", "ReplayError", "candidates_by_filter", "candidates_by_id", "columns_of"]


class ReplayError(OutboxError):
    """A replay was refused; nothing was changed. The message says why."""


@dataclass(frozen=True)
class Candidate:
    """What a replay would put back: an event for a subscription (None: to be resolved again).

    `dead` is the delivery id of the dead letter that it takes with it, None where there is none.
    """

    event_seq: int
    subscription_id: UUID | None
    dead: UUID | None


def candidates_by_id(connection: Connection, name: str, to: str | None = None) -> list[Candidate]:
    """Return what `dlv_…` or `evt_…` stands for: of an event, every subscription that it went to or died for.

    With `to` it is the event for that subscription alone. Subscriptions that it is on its way to are left out.

    Raises:
        NotFoundError: no such delivery or event.
        ReplayError: it is still on its way, to all of them.
    """
    found = _of_event(connection, name) if name.startswith("evt_") else _of_delivery(connection, name)
    found = found if to is None else _redirected(found, parse_id("sub", to))
    idle = _idle(connection, found)
    if not idle:
        raise ReplayError(f"replay: {name} is still on its way; see `relay deliveries list --state waiting`")
    return idle


def candidates_by_filter(
    connection: Connection, filters: Filters, *, delivered: bool = False, to: str | None = None
) -> list[Candidate]:
    """Return the dead letters that pass the filters, or the delivered ones; at most `filters.limit`, oldest first.

    What is on its way again is left out.
    """
    if filters.empty:
        raise ReplayError("filter: none given; give ids, or at least one of --since --until --type --subscription …")
    found = _delivered(connection, filters) if delivered else _dead(connection, dead_letters.find(connection, filters))
    return _idle(connection, found if to is None else _redirected(found, parse_id("sub", to)))


ON_THEIR_WAY = """
select event_seq, subscription_id from outbox.deliveries where event_seq = any(cast(:seqs as bigint[]))
"""


def _idle(connection: Connection, found: Sequence[Candidate]) -> list[Candidate]:
    """Leave out what has a delivery on its way: to that subscription, or where none is named, to any."""
    rows = connection.execute(text(ON_THEIR_WAY), columns_of(found))
    on_their_way = {pair for row in rows for pair in ((row.event_seq, row.subscription_id), (row.event_seq, None))}
    return [item for item in found if (item.event_seq, item.subscription_id) not in on_their_way]


def columns_of(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return the candidates as the arrays that statements take."""
    return {
        "seqs": [item.event_seq for item in candidates],
        "subscription_ids": [item.subscription_id for item in candidates],
        "dead": [item.dead for item in candidates],
    }


def _redirected(found: Sequence[Candidate], subscription_id: UUID) -> list[Candidate]:
    """Return one candidate an event for this subscription; dead letters of others stay where they are."""
    own = {item.event_seq: item.dead for item in found if item.subscription_id == subscription_id}
    seqs = dict.fromkeys(item.event_seq for item in found)
    return [Candidate(seq, subscription_id, own.get(seq)) for seq in seqs]


def _of_delivery(connection: Connection, name: str) -> list[Candidate]:
    uuid = parse_id("dlv", name)
    found = _dead(connection, [uuid])
    if found:
        return found
    row = connection.execute(text(_DONE), {"id": uuid}).one_or_none()
    if row is None:
        raise NotFoundError(f"delivery: no {text_id('dlv', uuid)}; never made, cancelled, or past its retention")
    if row.outstanding:
        raise ReplayError(f"delivery: {text_id('dlv', uuid)} is still on its way; see `relay deliveries show`")
    return [Candidate(row.event_seq, row.subscription_id, None)]


_DONE = """
select event_seq, subscription_id, true as outstanding from outbox.deliveries where id = :id
union all
(select event_seq, subscription_id, false from outbox.attempts
 where delivery_id = :id and verdict in ('delivered', 'dead') limit 1)
limit 1
"""


def _of_event(connection: Connection, name: str) -> list[Candidate]:
    uuid = parse_id("evt", name)
    seq = connection.execute(text(_SEQ), {"id": uuid}).scalar_one_or_none()
    if seq is None:
        raise NotFoundError(f"event: no {text_id('evt', uuid)}; never recorded, or pruned after its retention")
    dead = _dead(connection, list(connection.execute(text(_DEAD_OF), {"seq": seq}).scalars()))
    buried = {item.subscription_id for item in dead}
    delivered = [
        Candidate(seq, subscription_id, None)
        for subscription_id in connection.execute(text(_DELIVERED_OF), {"seq": seq}).scalars()
        if subscription_id not in buried
    ]
    return dead + delivered or [Candidate(seq, None, None)]


_SEQ = """
select seq from outbox.events where id = :id
union all (select event_seq from outbox.dead_letters where event_id = :id limit 1) limit 1
"""
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
    return [Candidate(row.event_seq, row.subscription_id, row.delivery_id) for row in rows]


def _delivered(connection: Connection, filters: Filters) -> list[Candidate]:
    where, parameters = filters.where(
        {"at": "a.at", "type": "e.type", "tenant": "e.tenant", "key": "e.key", "subscription": "a.subscription_id"}
    )
    statement = f"""
select a.event_seq, a.subscription_id from outbox.attempts a join outbox.events e on e.seq = a.event_seq
where a.verdict = 'delivered' and {where} group by 1, 2 order by 1, 2 limit :limit"""  # noqa: S608 - constants
    rows = connection.execute(text(statement), parameters)
    return [Candidate(row.event_seq, row.subscription_id, None) for row in rows]
