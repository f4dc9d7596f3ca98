"""What a person does to outstanding deliveries: make them due now, or cancel them for good.

Both take ids that were chosen before, and look again at each row once it is theirs: a relay may have leased, settled or
buried it meanwhile. Rows are locked in the order of their ids, as settlement does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.store.lanes import look_in
from outbox.control.store.named import for_any_driver

__all__ = ["Cancelled", "Hastened", "cancel", "hastening", "make_due"]


class Hastened(NamedTuple):
    """A delivery that was made due, and of which subscription."""

    id: UUID
    subscription_id: UUID


class Cancelled(NamedTuple):
    """A delivery that is no more; `leased`: a relay had it, so a request of it may be on its way."""

    id: UUID
    event_seq: int
    subscription_id: UUID
    leased: bool


# With a lease, due_at is the end of the lease: it is not ours to move. What is parked (infinity) waits for another
# delivery, not for a time. num_nulls: "lease is null" would admit the index of all that waits, which PostgreSQL reads
# from end to end for each batch, by statistics of an empty table.
def hastening(gate: str = "true") -> str:
    """waiting → due: return the CTE `made`, with that before it, where the condition holds; its parameter is ids."""
    return f"""
waiting as materialized (
    select id from outbox.deliveries
    where {gate} and id = any(%(ids)s::uuid[]) and num_nulls(lease) = 1
      and due_at > clock_timestamp() and due_at < 'infinity'
    order by id for no key update),
made as (
    update outbox.deliveries set due_at = clock_timestamp() where id = any(array(select id from waiting))
    returning id, subscription_id, null::bigint as lane)"""


_MAKE_DUE = for_any_driver(f"with {hastening()} select id, subscription_id from made")


def make_due(connection: Connection, ids: Sequence[UUID]) -> list[Hastened]:
    """waiting → due: what waits for a retry or its time is due now, with the attempts that it has; return which."""
    return [Hastened(*row) for row in connection.execute(_MAKE_DUE, {"ids": list(ids)})]


# Whoever has the lease: what a relay sends now cannot be called back, but its result finds no row any more. number is
# that of the last attempt, 0 where there was none.
_CANCEL = text("""
with outstanding as materialized (
    select id from outbox.deliveries where id = any(cast(:ids as uuid[])) order by id for update),
gone as (
    delete from outbox.deliveries where id = any(array(select id from outstanding))
    returning id, event_seq, subscription_id, attempts, lane,
              lease is not null and due_at > clock_timestamp() as leased),
logged as (
    insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)
    select id, event_seq, subscription_id, attempts, 'cancelled', 'cancelled', 0 from gone)
select id, event_seq, subscription_id, leased, lane from gone order by id
""")


def cancel(connection: Connection, ids: Sequence[UUID]) -> list[Cancelled]:
    """due, waiting, parked, leased or suspect → gone, each with an attempt row `cancelled` as its record; return which.

    The lane of a head goes on.
    """
    rows = connection.execute(_CANCEL, {"ids": list(ids)}).all()
    look_in(connection, [(row.subscription_id, row.lane) for row in rows if row.lane is not None])
    return [Cancelled(*row[:4]) for row in rows]
