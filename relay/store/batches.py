"""Batches: several due deliveries of one subscription, leased together and sent in one request.

Which deliveries are a batch stands in their rows: its id, and how many it has. A batch is claimed as a whole, with its
id, as long as all of them are there. Where one is gone (delivered alone, cancelled, buried) the others are another
batch, with a new id: an id never stands for two bodies. No row of a batch is ever claimed alone while its subscription
has batches, unless for a moment by a relay that does not know it yet, which gives it back.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from relay.store.arrays import Integers, Smallints, Uuids
from relay.store.batch_plan import Candidate, Group, group
from relay.store.claims import DUE_SINCE, MAX_ATTEMPTS, UNKNOWN_BYTES, with_events
from relay.store.database import BEGIN, SETTINGS, rollback_if_open
from relay.store.halving import part
from relay.store.lease import LEASE_SLACK_SECONDS
from relay.store.subscriptions import SENDABLE
from relay.store.suspects import IS_SUSPECT, MAX_CRASHES, SUSPECTS_AMONG, bury_suspect

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from relay.model.delivery import Delivery
    from relay.store.database import Database
    from relay.store.rows import Leased

__all__ = ["ClaimedBatch", "Readiness", "claim_batches", "find_ready"]

ROWS_MAX = 1000  # of one claim


class Readiness(NamedTuple):
    """Whether a subscription has a batch to send now; if not, after how many seconds its oldest event has waited."""

    subscription_id: bytes
    ready: bool
    wait_seconds: float


class ClaimedBatch(NamedTuple):
    """One batch that was leased; its rows are in the order of its body."""

    id: bytes
    rows: list[Leased]


# `offset` reads so many index entries at most, however many are due.
_FIND_READY = f"""
select a.id, o.batch_id is not null or o.age >= s.batch_milliseconds / 1000.0 or coalesce(f.full, false),
       s.batch_milliseconds / 1000.0 - o.age
from unnest(%b) with ordinality a(id, place)
cross join lateral (
    select batch_events, batch_milliseconds from outbox.subscriptions
    where id = a.id and batch_events is not null and {SENDABLE} limit 1) s
cross join lateral (
    select batch_id, extract(epoch from clock_timestamp() - ({DUE_SINCE}))::double precision as age
    from outbox.deliveries where subscription_id = a.id and due_at <= now() and coalesce(lease, -1) < 0
    order by due_at, id limit 1) o
left join lateral (
    select true as full from outbox.deliveries
    where subscription_id = a.id and due_at <= now() and coalesce(lease, -1) < 0
    order by due_at, id limit 1 offset s.batch_events - 1) f on true
order by a.place
"""


async def find_ready(database: Database, ids: Sequence[bytes]) -> list[Readiness]:
    """Return, of these subscriptions, those that have anything due, and whether it makes a batch already.

    It does where a batch is to be tried again, where enough events are due, or where the oldest has waited long enough.
    """
    return [Readiness(i, ready, float(wait)) for i, ready, wait in await database.fetch(_FIND_READY, Uuids(ids))]


_COLUMNS = f"""id, event_seq, attempts, coalesce(event_bytes, {UNKNOWN_BYTES}), batch_id, batch_size, crashes,
       extract(epoch from clock_timestamp() - ({DUE_SINCE}))::double precision"""
_RULE = "select batch_events, batch_milliseconds, version, timeout_seconds from outbox.subscriptions where id = %b"
_DUE = f"""
select {_COLUMNS} from outbox.deliveries
where subscription_id = %b and due_at <= now() and coalesce(lease, -1) < 0
order by due_at, id limit %b for no key update skip locked"""
_SUSPECT = f"""
with oldest as materialized (
    select * from outbox.deliveries where subscription_id = %b and due_at <= now()
    order by due_at, id limit {SUSPECTS_AMONG} for no key update skip locked)
select {_COLUMNS} from oldest where {IS_SUSPECT} limit 1"""
_LEAD = f"select {_COLUMNS} from outbox.deliveries where id = %b and lease = %b for no key update skip locked"
# Whatever is due when: a person may have made one of them due, and then all go. What is leased is somebody's.
_MEMBERS = f"""
select {_COLUMNS} from outbox.deliveries
where batch_id = any(%b) and (lease is null or lease = %b or due_at <= now() and %b)
order by id for no key update skip locked"""
_COUNTS = "select batch_id, count(*) from outbox.deliveries where batch_id = any(%b) group by batch_id"

_LEASE = f"""
update outbox.deliveries d set batch_id = r.batch, batch_size = r.size, lease = %b, boost_seconds = null,
    attempts = least(d.attempts + r.charge, {MAX_ATTEMPTS}), crashes = d.crashes + r.crash,
    due_at = (select clock_timestamp() + make_interval(secs => %b))
from unnest(%b, %b, %b, %b, %b) r(id, batch, size, charge, crash)
where d.id = r.id
returning d.id, d.attempts
"""
"""due or suspect → leased, with its batch."""

# No longer alone, like the former suspect of suspects.py.
_CLEAR = """
update outbox.deliveries set crashes = crashes - 1
where id = any(array(select id from outbox.deliveries where id = %b and lease = %b and crashes > 0
                     for no key update skip locked))"""


class _Asked(NamedTuple):
    subscription_id: bytes
    most: int
    byte_budget: int
    lease: int
    slack_seconds: float
    lead: bytes | None
    suspects: bool
    former: Delivery | None


async def claim_batches(
    database: Database,
    subscription_id: bytes,
    most: int,
    byte_budget: int,
    lease: int,
    slack_seconds: float = LEASE_SLACK_SECONDS,
    *,
    lead: bytes | None = None,
    suspects: bool = False,
    former: Delivery | None = None,
) -> list[ClaimedBatch]:
    """due → leased: lease up to `most` batches of a subscription; make them of what has none yet.

    Args:
        database: the data plane's.
        subscription_id: whose.
        most: batches at most.
        byte_budget: bytes of payloads; one batch is claimed at least.
        lease: the new lease.
        slack_seconds: how much longer than its attempt's timeout a lease lasts.
        lead: a delivery that was leased already, by this lease: its batch, or one of it alone.
        suspects: suspect → leased instead, one batch, which is then sent alone. One that ended its process too often
            is halved, and a single delivery becomes a dead letter; then nothing is leased.
        former: the suspect that this process claimed before and has not settled, if any: it is no longer alone.
    """
    asked = _Asked(subscription_id, most, byte_budget, lease, slack_seconds, lead, suspects, former)
    connection = await database.connect()
    try:
        async with connection.pipeline():
            await connection.execute(BEGIN)
            await database.set_up(connection, SETTINGS)
            rule = await connection.execute(_rule(asked), (UUID(bytes=subscription_id),), binary=True)
            first = await _first(connection, asked)
        claimed, poison = await _claim(connection, asked, await rule.fetchone(), await first.fetchall())
        await connection.execute("commit")
    finally:
        await rollback_if_open(connection)
    if poison is not None:
        await bury_suspect(database, poison)
    leased = await with_events(database, [row for _, rows in claimed for row in rows])
    sent = iter(leased)
    return [ClaimedBatch(batch, [next(sent) for _ in rows]) for batch, rows in claimed]


def _rule(asked: _Asked) -> str:
    """Return what reads the subscription; a probe is for one that is not sendable."""
    return _RULE if asked.lead is not None else f"{_RULE} and {SENDABLE}"


async def _first(connection: psycopg.AsyncConnection[Any], asked: _Asked) -> psycopg.AsyncCursor[Any]:
    """Lock what the batches are made of, or one row of each."""
    owner = UUID(bytes=asked.subscription_id)
    if asked.lead is not None:
        return await connection.execute(_LEAD, (UUID(bytes=asked.lead), asked.lease), binary=True)
    if asked.suspects:
        return await connection.execute(_SUSPECT, (owner,), binary=True)
    return await connection.execute(_DUE, (owner, ROWS_MAX), binary=True)


async def _claim(
    connection: psycopg.AsyncConnection[Any], asked: _Asked, rule: Sequence[Any] | None, rows: Sequence[Any]
) -> tuple[list[tuple[bytes, list[Any]]], bytes | None]:
    """Lease the batches that these rows belong to or make; return them, and a single suspect that must be buried."""
    if rule is None or rule[0] is None or not rows:
        return [], None
    limit, milliseconds, version, timeout = rule
    first = [Candidate(*row) for row in rows]
    members, counts = await _members(connection, asked, {one.batch for one in first if one.batch is not None})
    alone = asked.suspects or asked.lead is not None
    groups = group(
        first, members, counts, most=asked.most, limit=1 if alone else limit, byte_budget=asked.byte_budget,
        wait_seconds=0.0 if alone else milliseconds / 1000,
    )  # fmt: skip
    if asked.suspects and asked.lead is None and groups and min(one.crashes for one in groups[0].rows) >= MAX_CRASHES:
        return [], await part(connection, groups[0])
    if not groups:
        return [], None
    attempts = await _lease(connection, asked, groups, timeout)
    return [
        (one.id, [(row.id, row.event_seq, asked.subscription_id, attempts[row.id], version, timeout, row.weight, None)
                  for row in one.rows])
        for one in groups
    ], None  # fmt: skip


async def _members(
    connection: psycopg.AsyncConnection[Any], asked: _Asked, batches: set[bytes]
) -> tuple[dict[bytes, list[Candidate]], dict[bytes, int]]:
    """Lock what is free of these batches; return it by batch, and how many rows each has in all."""
    if not batches:
        return {}, {}
    ids = list(batches)
    async with connection.pipeline():
        found = await connection.execute(_MEMBERS, (Uuids(ids), asked.lease, asked.suspects), binary=True)
        counted = await connection.execute(_COUNTS, (Uuids(ids),), binary=True)
    rows = sorted((Candidate(*row) for row in await found.fetchall()), key=lambda one: one.batch or b"")
    members = {batch: list(same) for batch, same in groupby(rows, lambda one: one.batch) if batch is not None}
    return members, dict(await counted.fetchall())


async def _lease(
    connection: psycopg.AsyncConnection[Any], asked: _Asked, groups: Sequence[Group], timeout_seconds: int
) -> dict[bytes, int]:
    """due or suspect → leased; return the number of each row's attempt."""
    rows = [(row, one) for one in groups for row in one.rows]
    charges = [0 if asked.suspects or row.id == asked.lead else 1 for row, _ in rows]
    columns = (
        Uuids([row.id for row, _ in rows]),
        Uuids([one.id for _, one in rows]),
        Integers([len(one.rows) for _, one in rows]),
        Smallints(charges),
        Smallints([int(asked.suspects and row.id != asked.lead) for row, _ in rows]),  # the lead's is counted
    )
    async with connection.pipeline():
        if asked.suspects and asked.former is not None and asked.former.id not in {row.id for row, _ in rows}:
            await connection.execute(_CLEAR, (UUID(bytes=asked.former.id), asked.former.lease), binary=True)
        parameters = (asked.lease, asked.slack_seconds + timeout_seconds, *columns)
        leased = await connection.execute(_LEASE, parameters, binary=True)
    return dict(await leased.fetchall())
