"""From suspect to leased, alone: a lease that ended without a word may have ended its process."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from relay.store.arrays import Integers, Uuids
from relay.store.claims import ASKED, LEASED_WITH_EVENT, leased_rows
from relay.store.dead_letters import burial
from relay.store.lease import LEASE_END

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.delivery import Delivery
    from relay.store.database import Database
    from relay.store.rows import Leased

__all__ = ["MAX_CRASHES", "SUSPECTS_AMONG", "claim_suspect"]

MAX_CRASHES = 3  # lone crashes in a row after which a delivery is buried
SUSPECTS_AMONG = 20  # of a subscription's oldest due rows: like any row, a suspect waits for what was due before it

# One suspect at a time in a process: whoever was sent before it and is still out is no longer the lone one, so that
# one's charge is taken back in the same statement. What reached the limit is buried instead of sent.
_CLAIM_SUSPECT = f"""
with {ASKED},
candidates as materialized (
    select c.id from asked a cross join lateral (
        select id from (select id, lease from outbox.deliveries where subscription_id = a.id and due_at <= now()
                        order by due_at, id limit {SUSPECTS_AMONG}) oldest
        where lease is not null limit a.slots) c),
chosen as materialized (
    select id, crashes from outbox.deliveries
    where id = any(array(select id from candidates)) and due_at <= now() and lease is not null
    limit 1 for no key update skip locked),
cleared as (
    update outbox.deliveries set crashes = crashes - 1
    where id = %b and lease = %b and crashes > 0 and exists (select from chosen where chosen.id <> deliveries.id)),
lost as (
    delete from outbox.deliveries where id = any(array(select id from chosen where crashes >= {MAX_CRASHES}))
    returning id, event_seq, subscription_id, attempts, 'crash' as reason,
              'the relay process ended ' || crashes || ' times in a row while it sent this delivery alone' as error),
buried as ({burial("lost")}),
leased as (
    update outbox.deliveries d set lease = %b, crashes = crashes + 1, due_at = {LEASE_END}
    where d.id = any(array(select id from chosen where crashes < {MAX_CRASHES}))
    returning d.id, d.event_seq, d.subscription_id, d.attempts)
{LEASED_WITH_EVENT}"""


async def claim_suspect(database: Database, ids: Sequence[bytes], lease: int, former: Delivery | None) -> list[Leased]:
    """suspect → leased, one row at most, or → dead letter when it ended its process too often.

    Args:
        database: the data plane's.
        ids: the subscriptions to look at.
        lease: the new lease.
        former: the suspect that this process began before and still has out, if any: it is no longer alone.
    """
    former_id, former_lease = (former.id, former.lease) if former else (bytes(16), 0)
    asked = (Uuids(ids), Integers([1] * len(ids)), UUID(bytes=former_id), former_lease, lease)
    return leased_rows(await database.rows(_CLAIM_SUSPECT, *asked))
