"""Two batches made of one: of a suspect that ended its process too often, and of one that its endpoint refused.

That a refusal halves a batch is decided by relay/model/decide.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.store.arrays import Integers, Uuids
from relay.store.fan_out import new_ids
from relay.store.suspects import MAX_CRASHES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from relay.model.delivery import Delivery
    from relay.model.settlement import Settlement
    from relay.store.batch_plan import Group

__all__ = ["HALVE", "halve_columns", "part"]

# A process that ended again and again while it sent a batch alone: one of the events may be the cause.
_PART = f"""
update outbox.deliveries d set batch_id = r.batch, batch_size = r.size, lease = null, due_at = clock_timestamp(),
    crashes = case when r.size = 1 then 0 else {MAX_CRASHES - 1} end
from unnest(%b, %b, %b) r(id, batch, size)
where d.id = r.id and d.due_at <= clock_timestamp()
"""
"""suspect → due, in two new batches. Each half is suspected less: one more crash halves it again."""


async def part(connection: psycopg.AsyncConnection[Any], suspected: Group) -> bytes | None:
    """suspect → due, each half as a batch; return the one that there is where there is no half."""
    if len(suspected.rows) == 1:
        return suspected.rows[0].id
    await connection.execute(_PART, _halves([row.id for row in suspected.rows]), binary=True)
    return None


def _halves(ids: Sequence[bytes]) -> tuple[object, ...]:
    """Return (ids, new batches, their sizes) of the two halves."""
    middle = (len(ids) + 1) // 2
    sizes = [middle] * middle + [len(ids) - middle] * (len(ids) - middle)
    first, second = new_ids(2)
    return Uuids(ids), Uuids([first] * middle + [second] * (len(ids) - middle)), Integers(sizes)


# After the settlement, in its transaction. Who has leased the rows since, or tried them again, has them as they are.
HALVE = """
update outbox.deliveries d set batch_id = r.batch, batch_size = r.size, attempts = greatest(d.attempts - 1, 0)
from unnest(%b, %b, %b, %b, %b) r(id, batch, size, former, number)
where d.id = r.id and d.batch_id = r.former and d.lease is null and d.attempts = r.number
returning d.id
"""
"""waiting → waiting, in two new batches, the attempt given back."""


def halve_columns(rows: Sequence[Settlement]) -> tuple[object, ...] | None:
    """Return the parameters of HALVE; None where no batch is halved."""
    halved: dict[bytes, list[Delivery]] = {}
    for row in rows:
        if row.verdict.halves and row.delivery.batch is not None:
            halved.setdefault(row.delivery.batch, []).append(row.delivery)
    if not halved:
        return None
    columns: list[tuple[object, ...]] = []
    for former, members in halved.items():
        members.sort(key=lambda one: (one.event_seq, one.id))
        columns += _pairs(former, members)
    ids, batches, sizes, formers, numbers = zip(*columns, strict=True)
    return Uuids(ids), Uuids(batches), Integers(sizes), Uuids(formers), Integers(numbers)


def _pairs(former: bytes, members: Sequence[Delivery]) -> list[tuple[object, ...]]:
    middle = (len(members) + 1) // 2
    return [
        (one.id, batch, len(half), former, one.attempts)
        for batch, half in zip(new_ids(2), (members[:middle], members[middle:]), strict=True)
        for one in half
    ]
