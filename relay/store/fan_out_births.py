"""The deliveries that fan_out makes, as one insert beside the row of `resolutions`: due, leased or parked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.store.arrays import Bigints, Floats, Integers, Smallints, Timestamps, Uuids
from relay.store.rows import Birth

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["birth_of"]


# `due` is "not before" for a row that is not leased yet; of a leased one, due_at is the end of its lease.
def _birth(columns: str = "", values: str = "", earlier: str = "") -> str:
    """taken → due or leased: return the SQL that inserts the deliveries, with such further columns, an array each."""
    arrays = ", %b" * values.count(",")
    return f"""
with resolved as (
    insert into outbox.resolutions (first_seq, seqs, matches, gave_up_seqs, gave_up_subscriptions)
    values (%b, %b, %b, %b, %b))
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, lease, event_bytes{columns})
select id, event_seq, subscription_id,
       case when lease is null then greatest(due, clock_timestamp()){earlier}
            else clock_timestamp() + make_interval(secs => lease_seconds) end,
       case when lease is null then 0 else 1 end, lease, size{values}
from unnest(%b, %b, %b, %b, %b, %b, %b{arrays})
    r(id, event_seq, subscription_id, due, lease, lease_seconds, size{values})
"""


_BIRTH_PLAIN = _birth()
# An event with a priority is due earlier than it is: it passes what became due meanwhile, and nothing later passes it.
_EARLIER = " - make_interval(secs => coalesce(boost, 0))"
_BIRTH_BOOSTED = _birth(", boost_seconds", ", boost", _EARLIER)
_BIRTH_BATCHED = _birth(", boost_seconds, batch_id, batch_size", ", boost, batch, batch_size", _EARLIER)
_BIRTH_IN_LANES = """
with resolved as (
    insert into outbox.resolutions (first_seq, seqs, matches, gave_up_seqs, gave_up_subscriptions)
    values (%b, %b, %b, %b, %b))
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, lease, event_bytes, lane, not_before,
                               boost_seconds)
select id, event_seq, subscription_id,
       case when parked = 1 then 'infinity'
            when lease is null then greatest(due, clock_timestamp()) - make_interval(secs => coalesce(boost, 0))
            else clock_timestamp() + make_interval(secs => lease_seconds) end,
       case when lease is null then 0 else 1 end, lease, size, lane,
       case when parked = 1 and due > clock_timestamp() then due end, boost
from unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
    r(id, event_seq, subscription_id, due, lease, lease_seconds, size, lane, parked, boost)
"""
"""pending → due, leased or parked: what fan_out inserts where some deliveries are in lanes."""


def birth_of(births: Sequence[Birth], *, in_lanes: bool) -> tuple[str, tuple[object, ...]]:
    """taken → due, leased or parked: return the statement that inserts these, and its columns.

    Its first five parameters are those of the row of `resolutions` and not among the columns. `in_lanes`: some are in
    lanes.
    """
    # In the order of Birth's fields; by a list for each it would take half as long again.
    each = tuple(zip(*births, strict=True)) or ((),) * len(Birth._fields)
    ids, seqs, subscriptions, due, leases, seconds, sizes, boosts, lanes, parked, batches, batch_sizes = each
    columns: tuple[object, ...] = (
        Uuids(ids), Bigints(seqs), Uuids(subscriptions), Timestamps(due), Bigints(leases), Floats(seconds),
        Integers(sizes),
    )  # fmt: skip
    batched = any(batches)
    if not in_lanes and not batched and not any(boosts):
        return _BIRTH_PLAIN, columns
    if in_lanes:
        return _BIRTH_IN_LANES, (*columns, Bigints(lanes), Smallints(parked), Integers(boosts))
    if not batched:
        return _BIRTH_BOOSTED, (*columns, Integers(boosts))
    return _BIRTH_BATCHED, (*columns, Integers(boosts), Uuids(batches), Integers(batch_sizes))
