"""What a person puts back: dead letters and what was delivered. Each becomes a delivery with a new id.

One statement deletes a dead letter and makes its delivery, so that there are never both, and never neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.store.lanes import LANE_OF_EVENT, look_in
from outbox.control.store.named import for_any_driver
from outbox.control.store.sendable import MATCHED
from outbox.subscriptions.filters import Answer, FilteredEvent, stored_filter

__all__ = ["find_ended", "find_matching", "find_on_their_way", "put_back", "restore_events", "revival", "revive"]

_ON_THEIR_WAY = """
select event_seq, subscription_id from outbox.deliveries where event_seq = any(cast(:seqs as bigint[]))
"""
_ENDED = """
select event_seq, subscription_id from outbox.attempts
where event_seq = any(cast(:seqs as bigint[])) and verdict in ('delivered', 'dead', 'cancelled')
union select event_seq, subscription_id from outbox.dead_letters
where event_seq = any(cast(:seqs as bigint[])) and subscription_id is not null
"""


def find_ended(connection: Connection, seqs: Sequence[int]) -> set[tuple[int, UUID]]:
    """Return for which subscriptions a delivery of these events has ended once, in whatever way."""
    rows = connection.execute(text(_ENDED), {"seqs": list(seqs)})
    return {(row.event_seq, row.subscription_id) for row in rows}


# As fan_out matches them. An event that is pruned is known by its dead letters.
_MATCHING = text(f"""
with asked as materialized (
    select seq, tenant, type from outbox.events where seq = any(cast(:seqs as bigint[]))
    union select event_seq, tenant, type from outbox.dead_letters where event_seq = any(cast(:seqs as bigint[])))
select distinct a.seq, s.id, s.filter from asked a
cross join lateral (
    select distinct st.subscription_id from outbox.subscription_types st
    where st.tenant = any(array[a.tenant, '*']) and st.pattern = any(outbox.patterns_of(a.type))) m
cross join lateral (select id, filter from outbox.subscriptions where id = m.subscription_id and {MATCHED} limit 1) s
order by a.seq, s.id
""")


def find_matching(connection: Connection, seqs: Sequence[int]) -> list[tuple[int, UUID]]:
    """Return which subscriptions these events would match if they were resolved now, after their filters."""
    rows = connection.execute(_MATCHING, {"seqs": list(seqs)}).all()
    events = _read_events(connection, {row.seq for row in rows if row.filter is not None})
    filters = {text: stored_filter(text) for text in {row.filter for row in rows if row.filter is not None}}
    return [
        (row.seq, row.id)
        for row in rows
        if row.filter is None or (row.seq in events and filters[row.filter].answer(events[row.seq]) is Answer.MATCH)
    ]


_PAYLOADS = text("""
select seq, type, key, payload, metadata from outbox.events where seq = any(cast(:seqs as bigint[]))
union all
(select distinct on (event_seq) event_seq, type, key, payload, metadata from outbox.dead_letters
 where event_seq = any(cast(:seqs as bigint[])) order by event_seq)
""")


def _read_events(connection: Connection, seqs: set[int]) -> dict[int, FilteredEvent]:
    rows = connection.execute(_PAYLOADS, {"seqs": list(seqs)}).all() if seqs else []
    return {row.seq: FilteredEvent(row.type, row.payload, key=row.key, metadata=row.metadata) for row in rows}


def find_on_their_way(connection: Connection, seqs: Sequence[int]) -> set[tuple[int, UUID]]:
    """Return which of these events are due, waiting or leased, and for which subscriptions."""
    rows = connection.execute(text(_ON_THEIR_WAY), {"seqs": list(seqs)})
    return {(row.event_seq, row.subscription_id) for row in rows}


_PENDING = text("select event_seq from outbox.pending where event_seq = any(cast(:seqs as bigint[]))")


def find_pending(connection: Connection, seqs: Sequence[int]) -> set[int]:
    """Return which of these events are not resolved yet."""
    return {*connection.execute(_PENDING, {"seqs": list(seqs)}).scalars()}


_RESTORE = text("select outbox.restore_events(cast(:ids as uuid[]))")


def restore_events(connection: Connection, dead: Sequence[UUID]) -> None:
    """Write the pruned events of these dead letters again; pending → gone for each, since it was resolved before."""
    connection.execute(_RESTORE, {"ids": list(dead)})


_PUT_BACK = text("""
with gone as (
    delete from outbox.dead_letters where delivery_id = any(cast(:ids as uuid[])) returning event_seq),
back as (
    insert into outbox.pending (event_seq) select distinct event_seq from gone on conflict do nothing)
select count(*) from gone
""")


def put_back(connection: Connection, dead: Sequence[UUID]) -> int:
    """dead letter → pending, for events that could not be resolved; return how many there were."""
    found: int = connection.execute(_PUT_BACK, {"ids": list(dead)}).scalar_one()
    return found


# In an ordered subscription it is parked in its lane, where it is the next one if its event is the first. Whoever
# switches order on waits for this transaction, or this one sees it: nothing is made without a lane meanwhile.
# No delivery is made of a dead letter that is gone meanwhile (a late success, another replay). Nor of what somebody
# else put on its way meanwhile, but for what has ended once: whoever replays that asks for one more.
def revival(gate: str = "true", identity: str = "outbox.uuid7()") -> str:
    """dead letter or gone → due or parked: return the CTE `made`, with those before it, where the condition holds.

    `identity` is the SQL of a new id. Its parameters are the arrays seqs, subscription_ids, dead and besides.
    """
    return f"""
on_their_way as materialized (
    select event_seq, subscription_id from outbox.deliveries
    where subscription_id = any(%(subscription_ids)s::uuid[]) and event_seq = any(%(seqs)s::bigint[])),
held as materialized (
    select id, ordered from outbox.subscriptions
    where id = any(%(subscription_ids)s::uuid[]) and removed_at is null order by id for share),
asked as materialized (
    select c.*, s.bytes, s.lane, s.available_at, h.ordered
    from unnest(%(seqs)s::bigint[], %(subscription_ids)s::uuid[], %(dead)s::uuid[], %(besides)s::boolean[])
        c(seq, subscription_id, dead, besides)
    cross join lateral (
        select octet_length(payload) as bytes, {LANE_OF_EVENT} as lane, available_at from outbox.events
        where seq = c.seq and seq = any(%(seqs)s::bigint[]) limit 1) s
    cross join lateral (select ordered from held where id = c.subscription_id limit 1) h
    where {gate} and (c.besides or not exists (
        select from on_their_way o where o.event_seq = c.seq and o.subscription_id = c.subscription_id))),
gone as (
    delete from outbox.dead_letters where delivery_id = any(array(select dead from asked)) returning delivery_id),
made as (
    insert into outbox.deliveries (id, event_seq, subscription_id, due_at, not_before, event_bytes, lane)
    select {identity}, seq, subscription_id,
           case when ordered and lane is not null then 'infinity'
                else greatest(available_at, clock_timestamp()) end,
           case when ordered and lane is not null and available_at > clock_timestamp() then available_at end,
           bytes, case when ordered then lane end
    from (
        select distinct seq, subscription_id, bytes, lane, available_at, ordered from asked
        where dead is null or dead in (select delivery_id from gone)) pairs
    returning id, subscription_id, lane)"""


_REVIVE = for_any_driver(f"with {revival()} select id, subscription_id, lane from made")


def revive(
    connection: Connection,
    seqs: Sequence[int],
    subscription_ids: Sequence[UUID | None],
    dead: Sequence[UUID | None],
    besides: Sequence[bool],
) -> list[UUID]:
    """dead letter or gone → due or parked, as a new delivery each; return their ids.

    `dead` is None where nothing died. `besides`: also beside one of the same event and subscription that is on its way.
    """
    columns = {"seqs": list(seqs), "subscription_ids": list(subscription_ids), "dead": list(dead),
               "besides": list(besides)}  # fmt: skip
    made = connection.execute(_REVIVE, columns).all()
    look_in(connection, [(row.subscription_id, row.lane) for row in made if row.lane is not None])
    return [row.id for row in made]
