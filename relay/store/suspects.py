"""From suspect to leased, one at a time: a delivery whose lease ended unreported may have crashed its process."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from relay.store.arrays import Bigints, Integers, Uuids
from relay.store.bodies import fetch_readable
from relay.store.claims import ASKED, LEASED, with_events
from relay.store.dead_letters import EVENTS_TO_BURY, Copied, burial
from relay.store.lease import LEASE_END, LEASE_SLACK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.delivery import Delivery
    from relay.store.database import Database
    from relay.store.rows import Leased

__all__ = ["IS_SUSPECT", "MAX_CRASHES", "SUSPECTS_AMONG", "bury_suspect", "claim_suspect"]

MAX_CRASHES = 3  # lone crashes in a row after which a delivery is buried
SUSPECTS_AMONG = 20  # of a subscription's oldest due rows: like any row, a suspect waits for what was due before it

# Where a relay ended after it settled a part of a batch, that part is due first, however large, and the rest behind it.
# No claim takes one without the other.
IS_SUSPECT = """(lease is not null or batch_id = any(array(
        select batch_id from outbox.deliveries where batch_id = any(array(select distinct batch_id from oldest))
        and lease is not null and due_at <= now())))"""
"""Of a row of `oldest`, which is due: whether it is a suspect, or goes with one."""

# A process sends one suspect at a time, so that a crash is the fault of this one. Where the suspect before it is not
# settled yet, that one is no longer alone: the same statement takes its counted crash back. A suspect at the limit is
# told without its event, and then buried instead of sent: a burial reads events, and would plan and lock each leaf of
# them with every claim. What another transaction has locked is passed over before the oldest are counted: a relay that
# is stopped there would hold back all others of the subscription.
_CLAIM_SUSPECT = f"""
with {ASKED},
candidates as materialized (
    select c.id, c.crashes from asked a cross join lateral (
        select id, crashes from (
            select id, lease, crashes from outbox.deliveries where subscription_id = a.id and due_at <= now()
            order by due_at, id limit {SUSPECTS_AMONG} for no key update skip locked) oldest
        where lease is not null limit a.slots) c),
chosen as materialized (select id, crashes from candidates limit 1),
cleared as (
    update outbox.deliveries set crashes = crashes - 1
    where id = any(array(select id from outbox.deliveries where id = %b and lease = %b and crashes > 0
                         for no key update skip locked))
      and exists (select from chosen where chosen.id <> deliveries.id and chosen.crashes < {MAX_CRASHES})),
leased as (
    update outbox.deliveries d set lease = %b, crashes = crashes + 1, due_at = {LEASE_END}
    where d.id = any(array(select id from chosen where crashes < {MAX_CRASHES}))
    returning d.id, d.event_seq, d.subscription_id, d.attempts, d.event_bytes, d.lane)
{LEASED}
union all select id, null, null, null, null, null, null, null from chosen where crashes >= {MAX_CRASHES}"""
"""suspect → leased."""


async def claim_suspect(
    database: Database,
    ids: Sequence[bytes],
    lease: int,
    former: Delivery | None,
    slack_seconds: float = LEASE_SLACK_SECONDS,
) -> list[Leased]:
    """suspect → leased, one row at most, or → dead letter where it ended its process too often.

    Args:
        database: the data plane's.
        ids: the subscriptions that may have suspects.
        lease: the new lease.
        former: the suspect that this process claimed before and has not settled, if any: it is no longer alone.
        slack_seconds: how much longer than its attempt's timeout a lease lasts.
    """
    former_id, former_lease = (former.id, former.lease) if former else (bytes(16), 0)
    asked = (Uuids(ids), Integers([1] * len(ids)), UUID(bytes=former_id), former_lease, lease, slack_seconds)
    rows = await database.fetch(_CLAIM_SUSPECT, *asked)
    for identity, event_seq, *_ in rows:
        if event_seq is None:
            await bury_suspect(database, identity)
    return await with_events(database, [row for row in rows if row[1] is not None])


_EVENT_OF = "select event_seq from outbox.deliveries where id = %b"
_BURY_SUSPECT = f"""
with {EVENTS_TO_BURY}
lost as (
    delete from outbox.deliveries where id = %b and crashes >= {MAX_CRASHES} and due_at <= now() and lease is not null
    returning id, event_seq, subscription_id, attempts, 'crash' as reason,
              'the relay process ended ' || crashes || ' times in a row while it sent this delivery alone' as error)
{{burial}}"""
"""suspect → dead letter."""
# The next is for a suspect whose event the server cannot read, in whole or in part.
_BURY_SUSPECTS = [_BURY_SUSPECT.format(burial=burial("lost", "events_to_bury", copied)) for copied in Copied]


async def bury_suspect(database: Database, delivery_id: bytes) -> None:
    """suspect → dead letter: give up a delivery that ended its process too often."""
    identity = UUID(bytes=delivery_id)
    for (event_seq,) in await database.fetch(_EVENT_OF, identity):
        await fetch_readable(database, _BURY_SUSPECTS, Bigints([event_seq]), identity)
