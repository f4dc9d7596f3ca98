"""What a person puts back: dead letters and what was delivered. Each becomes a delivery with a new id.

One statement deletes a dead letter and makes its delivery, so that there are never both, and never neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

__all__ = ["find_on_their_way", "put_back", "restore_events", "revive"]

_ON_THEIR_WAY = """
select event_seq, subscription_id from outbox.deliveries where event_seq = any(cast(:seqs as bigint[]))
"""


def find_on_their_way(connection: Connection, seqs: Sequence[int]) -> set[tuple[int, UUID]]:
    """Return which of these events are due, waiting or leased, and for which subscriptions."""
    rows = connection.execute(text(_ON_THEIR_WAY), {"seqs": list(seqs)})
    return {(row.event_seq, row.subscription_id) for row in rows}


# Once its event is pruned, a dead letter has the only copy. The trigger of this insert makes the event pending, and it
# would go to every subscription again: the next statement deletes the pending row before anyone can see it.
_RESTORE = text("""
with missing as (
    select distinct on (l.event_seq) l.* from outbox.dead_letters l
    where l.delivery_id = any(cast(:ids as uuid[]))
      and not exists (select from outbox.events e where e.seq = l.event_seq and e.seq = any(cast(:seqs as bigint[])))
    order by l.event_seq)
insert into outbox.events (seq, id, tenant, type, key, payload, recorded_at)
select event_seq, event_id, tenant, type, key, payload, recorded_at from missing
returning seq
""")
_UNMARK = text("delete from outbox.pending where event_seq = any(cast(:seqs as bigint[]))")


def restore_events(connection: Connection, dead: Sequence[UUID], seqs: Sequence[int]) -> None:
    """Write the pruned events of these dead letters again; pending → gone for each, since it was resolved before.

    `seqs` are the numbers of their events, by which only the leaves that hold them are opened.
    """
    restored = list(connection.execute(_RESTORE, {"ids": list(dead), "seqs": list(seqs)}).scalars())
    connection.execute(_UNMARK, {"seqs": restored})


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


# No delivery is made of a dead letter that is gone meanwhile (a late success, another replay), nor of what somebody
# else put on its way meanwhile.
_REVIVE = text(f"""
with on_their_way as materialized ({_ON_THEIR_WAY}),
sizes as materialized (
    select seq, octet_length(payload) as bytes from outbox.events where seq = any(cast(:seqs as bigint[]))),
asked as materialized (
    select * from unnest(cast(:seqs as bigint[]), cast(:subscription_ids as uuid[]), cast(:dead as uuid[]))
        c(seq, subscription_id, dead)
    where not exists (select from on_their_way o where o.event_seq = seq and o.subscription_id = c.subscription_id)),
gone as (
    delete from outbox.dead_letters where delivery_id = any(array(select dead from asked)) returning delivery_id)
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, event_bytes)
select outbox.uuid7(), seq, subscription_id, clock_timestamp(), sizes.bytes
from (
    select distinct seq, subscription_id from asked
    where dead is null or dead in (select delivery_id from gone)) pairs
left join sizes using (seq)
returning id
""")


def revive(
    connection: Connection, seqs: Sequence[int], subscription_ids: Sequence[UUID | None], dead: Sequence[UUID | None]
) -> list[UUID]:
    """dead letter or gone → due, as a new delivery each; return their ids. `dead` is None where nothing died."""
    columns = {"seqs": list(seqs), "subscription_ids": list(subscription_ids), "dead": list(dead)}
    return list(connection.execute(_REVIVE, columns).scalars())
