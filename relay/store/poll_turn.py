"""The poll turn: which of several idle relays looks for new events at a high rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from relay.store.database import Database

__all__ = ["TURN_SECONDS", "take_poll_turn"]

TURN_SECONDS = 1.0

# A row that another relay is changing is left to it: nobody waits. Each process has two connections of that name; those
# of other roles may not be seen here.
_TAKE = """
with free as materialized (
    select holder from outbox.poller where holder = %b or coalesce(until <= clock_timestamp(), true)
    limit 1 for no key update skip locked),
taken as (
    update outbox.poller set holder = %b, until = clock_timestamp() + make_interval(secs => %b::float8)
    where single and exists (select from free)
    returning holder)
select (select count(*) from taken) = 1,
       (select count(*) from pg_stat_activity
        where datname = current_database() and backend_type = 'client backend'
          and application_name = current_setting('application_name'))
"""


async def take_poll_turn(database: Database, process: UUID) -> tuple[bool, int]:
    """Take or keep the turn for TURN_SECONDS unless another has it; tell whether, and how many processes run."""
    rows = await database.fetch(_TAKE, process, process, TURN_SECONDS)
    ((ours, connections),) = rows
    return bool(ours), max(1, -(-connections // 2))
