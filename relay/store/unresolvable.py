"""An event that fan_out cannot resolve: found by its number, and given up, so that it does not stop the others."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from relay.store.arrays import Bigints
from relay.store.bodies import fetch_readable
from relay.store.dead_letters import EVENTS_TO_BURY, Copied, burial
from relay.store.fan_out import new_ids

if TYPE_CHECKING:
    from relay.store.database import Database

__all__ = ["bury_unresolvable", "find_first_pending"]

_FIRST_PENDING = "select event_seq from outbox.pending where event_seq > %b order by event_seq limit 1"


async def find_first_pending(database: Database, after_seq: int) -> int | None:
    """Return the number of the first pending event above `after_seq`; None where there is none."""
    rows = await database.fetch(_FIRST_PENDING, after_seq)
    return rows[0][0] if rows else None


_UNRESOLVABLE = f"""
with {EVENTS_TO_BURY}
gone as (delete from outbox.pending where event_seq = %b returning event_seq),
lost as (select %b::uuid as id, event_seq, null::uuid as subscription_id, 0 as attempts, 'unresolvable' as reason,
                %s as error from gone)
{{burial}}
returning delivery_id"""
"""pending → dead letter."""
_UNRESOLVABLES = [_UNRESOLVABLE.format(burial=burial("lost", "events_to_bury", copied)) for copied in Copied]


async def bury_unresolvable(database: Database, event_seq: int, error: str) -> bool:
    """pending → dead letter: give up an event that fan_out cannot resolve, so that it does not stop the others.

    Tell whether it was pending still. Where the server cannot read the event, the dead letter has less of it.
    """
    (delivery_id,) = new_ids(1)
    asked = (event_seq, UUID(bytes=delivery_id), error)
    return bool(await fetch_readable(database, _UNRESOLVABLES, Bigints([event_seq]), *asked))
