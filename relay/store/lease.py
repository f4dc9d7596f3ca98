"""A lease, the right to make one attempt: how long it lasts, and how it is given back unused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from relay.store.arrays import Bigints, Floats, Smallints, Uuids
from relay.store.database import IMPATIENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.delivery import Delivery
    from relay.store.database import Database

__all__ = ["LEASE_END", "LEASE_SLACK_SECONDS", "START_WITHIN_SECONDS", "find_locked", "new_lease", "release"]

LEASE_SLACK_SECONDS = 6.0  # a lease lasts for the timeout of an attempt and this much more
START_WITHIN_SECONDS = 3.0  # of this slack the attempt may use so much to begin; the rest is for settling it

LEASE_END = """clock_timestamp() + make_interval(secs => %b + (
        select timeout_seconds from outbox.subscriptions where id = d.subscription_id))"""
"""The end of a lease; its parameter is the slack, in seconds as a float."""


def new_lease() -> int:
    """Return a random 63-bit lease: unlike a number of a sequence it never comes twice, whatever crashes."""
    return int.from_bytes(os.urandom(8), "big") >> 1


# The end of a hold is not written to due_at: a person may end the hold, and the delivery then goes out at once.
_RELEASE = """
update outbox.deliveries d set lease = null, attempts = greatest(attempts - r.charged, 0), crashes = 0,
       due_at = clock_timestamp() + make_interval(secs => r.wait_seconds)
from unnest(%b, %b, %b, %b) r(id, lease, charged, wait_seconds)
where d.id = r.id and d.lease = r.lease
"""


async def release(database: Database, rows: Sequence[tuple[Delivery, float]]) -> None:
    """leased → due after so many seconds: give back leases with which nothing was sent; no attempt is counted.

    Raises psycopg.errors.LockNotAvailable when somebody holds one of them for longer than a moment: none is released.
    """
    deliveries = [delivery for delivery, _ in rows]
    await database.fetch(
        _RELEASE,
        Uuids([delivery.id for delivery in deliveries]),
        Bigints([delivery.lease for delivery in deliveries]),
        Smallints([0 if delivery.suspect else 1 for delivery in deliveries]),
        Floats([seconds for _, seconds in rows]),
        settings=IMPATIENT,
    )


_FIND_LOCKED = """
with free as materialized (select id from outbox.deliveries where id = any(%b) for update skip locked)
select id from outbox.deliveries where id = any(%b) except select id from free
"""


async def find_locked(database: Database, ids: Sequence[bytes]) -> frozenset[bytes]:
    """Return which of these deliveries somebody else has locked now. One that is gone counts as free."""
    asked = Uuids(ids)
    return frozenset(row[0] for row in await database.fetch(_FIND_LOCKED, asked, asked, settings=IMPATIENT))
