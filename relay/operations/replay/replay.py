"""Replay: deliver again, by hand. Each replay makes a new delivery with an id of its own, so nobody settles it twice.

A dead letter becomes a delivery again and is gone as a dead letter, in one statement. What was delivered is delivered
once more. An event that could not be resolved goes back to pending. What is still on its way is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.ids import DeliveryId, EventId, SubscriptionId
from relay.operations import audit
from relay.operations.replay.replayable import (
    ON_THEIR_WAY,
    Candidate,
    ReplayError,
    candidates_by_filter,
    candidates_by_id,
    columns_of,
    refuse_strangers,
    unknown_subscription,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from relay.operations.filters import Filters

__all__ = ["Asked", "Candidate", "ReplayError", "candidates_by_filter", "candidates_by_id", "replay"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asked to be replayed, for the audit: by ids, or by filter and state; `to` another subscription."""

    names: Sequence[str] = ()
    filters: Filters | None = None
    state: str | None = None
    to: str | None = None


def replay(
    connection: Connection, tenant: str | None, candidates: Sequence[Candidate], asked: Asked | None = None
) -> list[DeliveryId]:
    """Put the candidates back and return the ids of the new deliveries, due now. All or nothing.

    The audit notes it, with what was `asked`.

    Raises:
        ReplayError: an event's payload is pruned, a subscription removed, of another tenant, or never had it.
        NotFoundError: an event is another tenant's than who asks.
    """
    refuse_strangers(connection, tenant, candidates)
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
    connection: Connection, candidates: Sequence[Candidate], asked: Asked, made: list[DeliveryId], resolved_again: int
) -> None:
    events = connection.execute(text(_EVENTS), columns_of(candidates)).all()
    names = [EventId.of(name) if name.startswith("evt_") else DeliveryId.of(name) for name in asked.names]
    dead = [DeliveryId.of(item.dead) for item in candidates if item.dead is not None]
    ids = [*names, *dead, *(EventId.of(row.id) for row in events)]
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
    columns = columns_of(direct)
    connection.execute(text(_HOLD), columns)
    row = connection.execute(text(_IMPOSSIBLE), columns).one_or_none()
    if row is None:
        return
    subscription = SubscriptionId.of(row.subscription_id)
    if row.subscriber is None:
        raise unknown_subscription(subscription)
    if not row.alive:
        raise ReplayError(f"subscription: {subscription} is removed; name another with --to sub_…")
    if row.event_id is None:
        raise ReplayError(f"event: number {row.seq} is pruned after its retention; its payload is gone")
    raise ReplayError(f"subscription: {subscription} is another tenant's than {EventId.of(row.event_id)}")


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
with on_their_way as materialized ({ON_THEIR_WAY}),
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


def _revive(connection: Connection, direct: Sequence[Candidate]) -> list[DeliveryId]:
    """Dead letter or done → a new delivery, due now."""
    return [DeliveryId.of(uuid) for uuid in connection.execute(text(_REVIVE), columns_of(direct)).scalars()]
