"""Open breakers: which of them want a probe, and one delivery for each: from due to leased. See breaker.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.store.arrays import Uuids
from relay.store.claims import LEASED, MAX_ATTEMPTS, with_events
from relay.store.lease import LEASE_END, LEASE_SLACK_SECONDS
from relay.store.subscriptions import NOT_HELD
from relay.store.suspects import MAX_CRASHES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Database
    from relay.store.rows import Leased

__all__ = ["Noted", "Probe", "claim_probes", "read_noted"]


class Noted(NamedTuple):
    """An endpoint whose health changed: whether its breaker is open.

    failing: it failed last. ailing: it failed within the window. probe: whether a probe is due.
    """

    subscription_id: bytes
    open: bool
    failing: bool
    ailing: bool
    probe: bool


_MAY_BE_SENT_TO = f"""select timeout_seconds from outbox.subscriptions
        where id = h.subscription_id
          and paused_at is null and removed_at is null and sorting_since is null and {NOT_HELD}
          and (disabled_at is null or h.disabled_at is not null and recovery_seconds > 0)
        limit 1"""

# A look over the whole table, which has a row for each endpoint that fails, and a look-up for each probe that is due:
# who has nothing to send would come again with every look, and keep out others. Who set recovery_seconds after the
# subscription was disabled wants a probe at once. Those that want one and those that changed are bounded apart.
_NOTED = f"""
with wanting as materialized (
    select h.subscription_id as id, h.probe_at from outbox.health h
    cross join lateral ({_MAY_BE_SENT_TO}) s
    cross join lateral (
        select from outbox.deliveries where subscription_id = h.subscription_id and due_at <= now() limit 1) d
    where h.opened_at is not null and (h.probe_at is null or h.probe_at <= clock_timestamp())
    order by h.probe_at nulls first limit %b),
changed as materialized (
    select subscription_id as id from outbox.health where changed_at >= to_timestamp(%b) limit %b)
select n.id, h.opened_at is not null, h.failing_since is not null, h.failures > 0, n.place is not null,
       extract(epoch from clock_timestamp())::double precision
from (select id, min(place) as place
      from (select id, row_number() over (order by probe_at nulls first) as place from wanting
            union all select id, null from changed) both_kinds group by id) n
cross join lateral (select * from outbox.health where subscription_id = n.id limit 1) h
order by n.place
"""
NOTED_MAX = 2000  # of either kind


async def read_noted(database: Database, since: float) -> tuple[list[Noted], float]:
    """Read whose health changed since (Unix seconds on the database's clock) or wants a probe, and the newest time.

    Those that want a probe come first, who has waited longest before all.
    """
    rows = await database.fetch(_NOTED, NOTED_MAX, since, NOTED_MAX)
    return [Noted(*row[:-1]) for row in rows], max((row[-1] for row in rows), default=since)


class Probe(NamedTuple):
    """A row that was leased to probe its endpoint; `suspect`: its former lease ended without a result."""

    row: Leased
    suspect: bool


# Of a delivery that is due; the parameter tells whether it may be a suspect.
_FIT = f"case when lease is null then true else %b and crashes < {MAX_CRASHES} end"

# Whoever moves probe_at has the probe: where another relay was faster, the lock waits for nobody and the row no longer
# fits. Until probe_at, which lies beyond the end of the lease, nobody else sends anything to this endpoint.
# A suspect is sent by a relay that sends no other one, as in suspects.py; what crashed too often is left to that.
# Its attempt is the one that its former lease was charged for.
# The limit counts only who has anything to send: the others would take the places of those behind them.
_CLAIM_PROBES = f"""
with ready as materialized (
    select a.id, s.timeout_seconds from unnest(%b) with ordinality a(id, place)
    cross join lateral (
        select subscription_id, disabled_at from outbox.health
        where subscription_id = a.id and opened_at is not null and coalesce(probe_at <= clock_timestamp(), true)
        limit 1 for update skip locked) h
    cross join lateral ({_MAY_BE_SENT_TO}) s
    cross join lateral (
        select from outbox.deliveries where subscription_id = a.id and due_at <= now() and {_FIT} limit 1) d
    order by a.place limit %b),
chosen as materialized (
    select c.id, c.suspect, r.id as subscription_id, r.timeout_seconds,
           row_number() over (partition by c.suspect) as nth
    from ready r cross join lateral (
        select id, lease is not null as suspect from outbox.deliveries
        where subscription_id = r.id and due_at <= now() and {_FIT}
        order by due_at, id limit 1 for no key update skip locked) c),
fitting as materialized (select * from chosen where not suspect or nth = 1),
taken as (
    update outbox.health h set probe_at = clock_timestamp() + make_interval(secs => %b + (
        select timeout_seconds from fitting f where f.subscription_id = h.subscription_id))
    where subscription_id = any(array(select subscription_id from fitting))),
leased as (
    update outbox.deliveries d set lease = %b, due_at = {LEASE_END},
        attempts = case when lease is null then least(attempts + 1, {MAX_ATTEMPTS}) else attempts end,
        crashes = case when lease is null then crashes else crashes + 1 end
    where d.id = any(array(select id from fitting))
    returning d.id, d.event_seq, d.subscription_id, d.attempts, d.event_bytes, d.lane),
told as ({LEASED})
select told.*, d.id = any(array(select id from fitting where suspect)) from told cross join lateral (select told.id) d
"""


async def claim_probes(
    database: Database,
    ids: Sequence[bytes],
    limit: int,
    lease: int,
    slack_seconds: float = LEASE_SLACK_SECONDS,
    *,
    may_be_suspect: bool,
) -> list[Probe]:
    """due → leased, or suspect → leased: one delivery for each open breaker that may be probed now.

    Args:
        database: the data plane's.
        ids: the subscriptions that want a probe.
        limit: deliveries of all.
        lease: the new lease.
        slack_seconds: how much longer than its attempt's timeout a lease lasts.
        may_be_suspect: whether one of them may be a suspect.
    """
    asked = (Uuids(ids), may_be_suspect, limit, may_be_suspect, slack_seconds, lease, slack_seconds)
    rows = await database.fetch(_CLAIM_PROBES, *asked)
    leased = await with_events(database, [row[:-1] for row in rows])
    return [Probe(row, raw[-1]) for row, raw in zip(leased, rows, strict=True)]
