"""Replay: deliver again, by hand. Each replay makes a new delivery with an id of its own, so nobody settles it twice.

A dead letter becomes a delivery again and is gone as a dead letter, in one statement. What was delivered is delivered
once more. An event that could not be resolved goes back to pending. What is still on its way is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.errors import NotFoundError, OutboxError
from outbox.ids import parse_id, text_id
from relay.operations import audit, dead_letters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from relay.operations.filters import Filters

__all__ = ["Asked", "Candidate", "ReplayError", "candidates_by_filter", "candidates_by_id", "replay"]


class ReplayError(OutboxError):
    """A replay was refused; nothing was changed. The message says why."""


@dataclass(frozen=True)
class Asked:
    """What a person asked to be replayed, for the audit: by ids, or by filter and state; `to` another subscription."""

    names: Sequence[str] = ()
    filters: Filters | None = None
    state: str | None = None
    to: str | None = None


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


_ON_THEIR_WAY = """
select event_seq, subscription_id from outbox.deliveries where event_seq = any(cast(:seqs as bigint[]))
"""


def _idle(connection: Connection, found: Sequence[Candidate]) -> list[Candidate]:
    """Leave out what has a delivery on its way: to that subscription, or where none is named, to any."""
    rows = connection.execute(text(_ON_THEIR_WAY), _columns(found))
    on_their_way = {pair for row in rows for pair in ((row.event_seq, row.subscription_id), (row.event_seq, None))}
    return [item for item in found if (item.event_seq, item.subscription_id) not in on_their_way]


def _columns(candidates: Sequence[Candidate]) -> dict[str, Any]:
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


def replay(connection: Connection, candidates: Sequence[Candidate], asked: Asked | None = None) -> list[str]:
    """Put the candidates back and return the ids of the new deliveries, due now. All or nothing.

    The audit notes it, with what was `asked`.

    Raises:
        ReplayError: an event's payload is pruned, a subscription removed, of another tenant, or never had it.
    """
    direct = [item for item in candidates if item.subscription_id is not None]
    unresolved = [item for item in candidates if item.subscription_id is None]
    _refuse_unresolved_without_dead_letter(unresolved)
    _restore_events(connection, [item.dead for item in candidates if item.dead is not None])
    _refuse_impossible(connection, direct)
    resolved_again = _put_back(connection, [item.dead for item in unresolved if item.dead is not None])
    made = _revive(connection, direct)
    _note(connection, candidates, asked or Asked(), made, resolved_again)
    return made


def _note(
    connection: Connection, candidates: Sequence[Candidate], asked: Asked, made: list[str], resolved_again: int
) -> None:
    events = connection.execute(text(_EVENTS), _columns(candidates)).all()
    names = [name if name.startswith("evt_") else text_id("dlv", parse_id("dlv", name)) for name in asked.names]
    dead = [text_id("dlv", item.dead) for item in candidates if item.dead is not None]
    ids = [*names, *dead, *(text_id("evt", row.id) for row in events)]
    audit.note(
        connection, "replayed", count=len(made) + resolved_again, ids=ids,
        subject=ids[0] if len(names) == 1 or len(candidates) == 1 else None, tenants=(row.tenant for row in events),
        filters=asked.filters, more={"state": asked.state, "to": asked.to, "deliveries": made},
    )  # fmt: skip


_EVENTS = "select id, tenant from outbox.events where seq = any(cast(:seqs as bigint[])) order by seq"


def _refuse_unresolved_without_dead_letter(unresolved: Sequence[Candidate]) -> None:
    if any(item.dead is None for item in unresolved):
        raise ReplayError("event: went to no subscription so far; name one with --to sub_…")


# A dead letter has the event's only copy once the event is pruned. Written again, the event would be resolved for
# everybody: so what its trigger marks is unmarked by the next statement, before anyone can see it.
_RESTORE = """
with missing as (
    select distinct on (l.event_seq) l.* from outbox.dead_letters l
    where l.delivery_id = any(cast(:ids as uuid[]))
      and not exists (select from outbox.events e where e.seq = l.event_seq)
    order by l.event_seq)
insert into outbox.events (seq, id, tenant, type, key, payload, recorded_at)
select event_seq, event_id, tenant, type, key, payload, recorded_at from missing
returning seq
"""
_UNMARK = "delete from outbox.pending where event_seq = any(cast(:seqs as bigint[]))"


def _restore_events(connection: Connection, dead: Sequence[UUID]) -> None:
    restored = list(connection.execute(text(_RESTORE), {"ids": list(dead)}).scalars())
    connection.execute(text(_UNMARK), {"seqs": restored})


# Retention passes over an event that is held, or has taken it before. Another replay of it waits, and then sees ours.
_HOLD = "select seq from outbox.events where seq = any(cast(:seqs as bigint[])) order by seq for no key update"

_IMPOSSIBLE = """
select c.seq, e.id as event_id, e.tenant, c.subscription_id, s.tenant as subscriber, s.removed_at is null as alive
from unnest(cast(:seqs as bigint[]), cast(:subscription_ids as uuid[])) c(seq, subscription_id)
left join outbox.events e on e.seq = c.seq
left join outbox.subscriptions s on s.id = c.subscription_id
where e.id is null or s.id is null or s.removed_at is not null or s.tenant not in (e.tenant, '*')
limit 1
"""


def _refuse_impossible(connection: Connection, direct: Sequence[Candidate]) -> None:
    columns = _columns(direct)
    connection.execute(text(_HOLD), columns)
    row = connection.execute(text(_IMPOSSIBLE), columns).one_or_none()
    if row is None:
        return
    subscription = text_id("sub", row.subscription_id)
    if row.subscriber is None:
        raise ReplayError(f"subscription: no {subscription}; never made, or removed: name another with --to sub_…")
    if not row.alive:
        raise ReplayError(f"subscription: {subscription} is removed; name another with --to sub_…")
    if row.event_id is None:
        raise ReplayError(f"event: number {row.seq} is pruned after its retention; its payload is gone")
    raise ReplayError(f"subscription: {subscription} is another tenant's than {text_id('evt', row.event_id)}")


def _put_back(connection: Connection, dead: Sequence[UUID]) -> int:
    """Dead letter of an event that could not be resolved → pending. Returns how many there were."""
    statement = """
with gone as (
    delete from outbox.dead_letters where delivery_id = any(cast(:ids as uuid[])) returning event_seq),
back as (
    insert into outbox.pending (event_seq) select distinct event_seq from gone on conflict do nothing)
select count(*) from gone"""
    found: int = connection.execute(text(statement), {"ids": list(dead)}).scalar_one()
    return found


# A dead letter that somebody else took meanwhile (a late success, another replay) makes no delivery, nor does what
# somebody else put on its way meanwhile.
_REVIVE = f"""
with on_their_way as materialized ({_ON_THEIR_WAY}),
asked as materialized (
    select * from unnest(cast(:seqs as bigint[]), cast(:subscription_ids as uuid[]), cast(:dead as uuid[]))
        c(seq, subscription_id, dead)
    where not exists (select from on_their_way o where o.event_seq = seq and o.subscription_id = c.subscription_id)),
gone as (
    delete from outbox.dead_letters where delivery_id = any(array(select dead from asked)) returning delivery_id)
insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
select outbox.uuid7(), seq, subscription_id, clock_timestamp() from (
    select distinct seq, subscription_id from asked
    where dead is null or dead in (select delivery_id from gone)) pairs
returning id
"""  # noqa: S608 - constants


def _revive(connection: Connection, direct: Sequence[Candidate]) -> list[str]:
    """Dead letter or done → a new delivery, due now."""
    return [text_id("dlv", uuid) for uuid in connection.execute(text(_REVIVE), _columns(direct)).scalars()]
