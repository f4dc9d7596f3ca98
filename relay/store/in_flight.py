"""Caps on requests under way, over all relays: each process takes a share of a subscription's cap.

The shares are rows of outbox.in_flight, one a process. A row lasts for as long as a request that its process may have
begun. Who takes a share locks the subscription's cell first, as who takes slots of it does (limits.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from relay.store.arrays import Floats, Integers, Uuids
from relay.store.database import IMPATIENT
from relay.store.limits import LOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Database

__all__ = ["AskedShare", "GrantedShare", "take_in_flight"]


class AskedShare(NamedTuple):
    """What one subscription's cap is asked for: `want` requests under way for so many seconds; `keep` already are."""

    id: bytes
    cap: int
    want: int
    keep: int
    seconds: float


class GrantedShare(NamedTuple):
    """How many requests this process may have under way; where it wants more, when others' shares end, in seconds."""

    id: bytes
    slots: int
    others_end: float


# Half of what is free, so that another process finds some, too.
_SHARE = """
with asked as materialized (
    select * from unnest(%b, %b, %b, %b, %b) a(id, cap, want, keep, seconds)),
seen as materialized (
    select a.*, coalesce(o.slots, 0) as others, o.ends, coalesce(m.slots, 0) as mine
    from asked a
    cross join lateral (select from outbox.limits where id = a.id limit 1) c
    cross join lateral (
        select sum(slots)::integer as slots, extract(epoch from min(ends_at) - clock_timestamp())::float8 as ends
        from outbox.in_flight where subscription_id = a.id and holder <> %b and ends_at > clock_timestamp()) o
    left join lateral (
        select slots from outbox.in_flight where subscription_id = a.id and holder = %b limit 1) m on true),
shared as materialized (
    select id, seconds, ends, greatest(keep, least(
               want, cap - others, mine + (greatest(cap - others - mine, 0) + 1) / 2)) as slots
    from seen),
ended as (
    delete from outbox.in_flight f where subscription_id = any(array(select id from shared))
      and case when holder = %b then subscription_id = any(array(select id from shared where slots <= 0))
               else ends_at <= clock_timestamp() end),
written as (
    insert into outbox.in_flight (subscription_id, holder, slots, ends_at)
    select id, %b, slots, clock_timestamp() + make_interval(secs => seconds) from shared where slots > 0
    on conflict (subscription_id, holder) do update set slots = excluded.slots, ends_at = excluded.ends_at)
select id, greatest(slots, 0), coalesce(ends, 0) from shared
"""


async def take_in_flight(database: Database, holder: bytes, asked: Sequence[AskedShare]) -> list[GrantedShare]:
    """Take, prolong or give back this process's share of these caps; none is left of one that wants and keeps none.

    A cell that is not there is left out of the answer: make it, and ask again. Raises as `take_slots` does.
    """
    ids, caps, wants, keeps, seconds = zip(*asked, strict=True)
    columns = (Uuids(ids), Integers(caps), Integers(wants), Integers(keeps), Floats(seconds))
    me = UUID(bytes=holder)
    share = (_SHARE, (*columns, me, me, me, me))
    _, rows = await database.transaction((LOCK, (Uuids(ids),)), share, settings=IMPATIENT)
    return [GrantedShare(*row) for row in rows]
