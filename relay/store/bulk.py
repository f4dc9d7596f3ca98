"""Bulk operations, as relays carry them out: take one, read a page, put a batch back.

An operation has one relay at a time, by a lease in its row; but what holds when two believe that they have it (one was
frozen) is the transaction of a batch: it locks the row first, and puts nothing back unless the operation still runs,
is still its own, and is where it was. In the same transaction the place moves on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from outbox.control.store.by_hand import hastening
from outbox.control.store.replay import revival
from outbox.subscriptions.filters import FilteredEvent
from relay.store.bulk_pages import BATCH, Work, page_of, page_statement, utc
from relay.store.database import PRUNE_WHEN_PLANNED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.bulk_pages import Found, Page
    from relay.store.database import Database
    from relay.store.lanes import Lane

__all__ = [
    "BACKLOG", "BACKLOG_SECONDS", "LEASE_SECONDS", "BulkMoved", "FilteredPayload", "claim_bulk", "end_bulk",
    "is_bulk_running", "mark_of", "put_back_bulk", "put_off_bulk", "read_bulk", "read_bulk_payloads",
]  # fmt: skip

LEASE_SECONDS = 3.0
# While so much of a subscription is outstanding, nothing is added to it: what is new would wait behind all of that.
BACKLOG = 10_000
BACKLOG_SECONDS = 2

_PRUNED: tuple[str, tuple[()]] = (PRUNE_WHEN_PLANNED, ())

# Credit grows by `rate` a second, up to a second's worth. The one that has waited longest goes first.
_CLAIM = f"""
with mine as materialized (
    select id from outbox.bulk_operations
    where state = 'running' and allowed_at <= clock_timestamp() - make_interval(secs => 1.0 / rate)
      and (holder = %(holder)s or leased_until is null or leased_until <= clock_timestamp())
    order by allowed_at, id limit 1 for no key update skip locked),
taken as (
    update outbox.bulk_operations
    set holder = %(holder)s, leased_until = clock_timestamp() + make_interval(secs => %(lease)s)
    where id = any(array(select id from mine))
    returning *, greatest(1, least({BATCH}, rate, floor(
        rate * extract(epoch from clock_timestamp() - allowed_at))))::integer as room)
select t.id, t.kind, t.phase, t.subscription_id, t.tenant, t.parameters, {utc("t.started_at")}, t.up_to_seq,
       {utc("t.after_at")}, t.after_id, t.after_seq, case when t.kind = 'backfill' then s.filter end, t.room,
       (select count(*) from (select from outbox.deliveries d where d.subscription_id = t.subscription_id
                              and (t.phase = 'events' or d.due_at <= clock_timestamp())
                              limit %(backlog)s) b) = %(backlog)s,
       t.subscription_id is not null and (s.id is null or s.removed_at is not null)
from taken t left join outbox.subscriptions s on s.id = t.subscription_id
"""


async def claim_bulk(database: Database, holder: UUID, lease_seconds: float = LEASE_SECONDS) -> Work | None:
    """Take the operation that has waited longest, or keep ours; None where no operation may go on now."""
    parameters = {"holder": holder, "backlog": BACKLOG, "lease": lease_seconds}
    rows = await database.fetch_named(_CLAIM, parameters)
    if not rows:
        return None
    (identity, kind, phase, subscription_id, tenant, parameters, started_at, up_to_seq, after_at, after_id, after_seq,
     filter_, room, is_behind, is_removed) = rows[0]  # fmt: skip
    return Work(
        id=_uuid(identity), kind=kind, phase=phase, subscription_id=_uuid(subscription_id), tenant=tenant,
        parameters=parameters, started_at=started_at, up_to_seq=up_to_seq, after_at=after_at, after_id=_uuid(after_id),
        after_seq=after_seq, filter=filter_, room=room, is_behind=is_behind, is_removed=is_removed,
    )  # fmt: skip


def _uuid(raw: bytes | None) -> UUID | None:
    return None if raw is None else UUID(bytes=raw)


async def read_bulk(database: Database, work: Work, look: int = BATCH) -> Page:
    """Read the next page of an operation, of at most `look` rows; changes nothing."""
    _, rows = await database.transaction(_PRUNED, page_statement(work, look=look))
    return page_of(work, rows, look=look)


class FilteredPayload(NamedTuple):
    """What a filter reads of an event."""

    seq: int
    type: str
    key: str | None
    payload: str
    metadata: str | None

    def filtered(self) -> FilteredEvent:
        """Return it as filters see it."""
        return FilteredEvent(self.type, self.payload, key=self.key, metadata=self.metadata)


_PAYLOADS = """
select seq, type, key, payload, metadata::text from outbox.events where seq = any(%(seqs)s::bigint[]) order by seq"""


async def read_bulk_payloads(database: Database, seqs: Sequence[int]) -> list[FilteredPayload]:
    """Read what a filter reads of these events; one that is gone is left out."""
    _, rows = await database.transaction(_PRUNED, (_PAYLOADS, {"seqs": list(seqs)}))
    return [FilteredPayload(*row) for row in rows]


class BulkMoved(NamedTuple):
    """What a batch put back: the subscriptions that have something due by it, each once, and lanes to look at."""

    made: int
    due: list[bytes]
    lanes: list[Lane]


_OURS = "id = %(operation)s and holder = %(holder)s and state = 'running'"
_LOCK = f"select from outbox.bulk_operations where {_OURS} for no key update"
_GATE = f"exists (select from outbox.bulk_operations where {_OURS})"
_RESTORE = f"select outbox.restore_events(%(dead)s) where {_GATE}"
_HOLD = f"select outbox.hold_events(%(seqs)s) where {_GATE}"
_WHERE_IT_WAS = """phase = %(from_phase)s and after_seq = %(from_seq)s
    and after_id is not distinct from %(from_id)s::uuid"""
_MOVE = f"""
moved as (
    update outbox.bulk_operations
    set done = done + (select count(*) from made), passed_over = passed_over + %(passed_over)s, phase = %(phase)s,
        after_at = %(after_at)s::timestamptz, after_id = %(after_id)s::uuid, after_seq = %(after_seq)s,
        allowed_at = greatest(allowed_at, clock_timestamp() - interval '1 second')
                     + make_interval(secs => (select count(*) from made)::double precision / rate),
        failures = 0, last_error = null, xid = pg_current_xact_id()
    where {_OURS} and {_WHERE_IT_WAS})
select subscription_id, lane from made
"""
_HERE = f"{_GATE[:-1]} and {_WHERE_IT_WAS})"
_MARKED = "overlay(outbox.uuid7()::text placing %(mark)s from 29)::uuid"
_REVIVE = f"with {revival(_HERE, _MARKED)}, {_MOVE}"
"""dead letter or gone → due or parked: a batch of an operation, which moves on by it."""
_HASTEN = f"with {hastening(_HERE)}, {_MOVE}"
"""waiting → due: a batch of an operation, which moves on by it."""


async def put_back_bulk(
    database: Database, holder: UUID, work: Work, found: Sequence[Found], passed_over: int, left: Work
) -> BulkMoved:
    """dead letter, gone or waiting → due or parked: put a batch back, and move the operation on to `left`.

    Nothing is put back where the operation is not ours any more, does not run, or is not where it was at `work`.
    """
    place = {
        "operation": work.id, "holder": holder, "passed_over": passed_over,
        "from_phase": work.phase, "from_seq": work.after_seq, "from_id": work.after_id,
        "phase": left.phase, "after_at": left.after_at, "after_id": left.after_id, "after_seq": left.after_seq,
    }  # fmt: skip
    statements = _hastened(found, place) if work.phase == "waiting" else _revived(work, found, place)
    *_, rows = await database.transaction(_PRUNED, (_LOCK, place), *statements)
    due = dict.fromkeys(subscription_id for subscription_id, lane in rows if lane is None)
    lanes = dict.fromkeys((subscription_id, lane) for subscription_id, lane in rows if lane is not None)
    return BulkMoved(len(rows), list(due), list(lanes))


def _hastened(found: Sequence[Found], place: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """waiting → due: return the statement of a batch."""
    return [(_HASTEN, place | {"ids": [one.id for one in found]})]


def _revived(work: Work, found: Sequence[Found], place: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """dead letter or gone → due or parked: return the statements of a batch.

    A dead letter has ended: what is on its way besides does not matter, and need not be looked for.
    """
    seqs, dead = [one.event_seq for one in found], [one.id for one in found]
    assert work.id is not None
    columns = {
        "seqs": seqs, "subscription_ids": [one.subscription_id for one in found], "dead": dead,
        "besides": [work.phase == "dead"] * len(found), "mark": mark_of(work.id),
    }  # fmt: skip
    buried = [one for one in dead if one is not None]
    restore = [(_RESTORE, place | {"dead": buried})] if buried else []
    return [*restore, (_HOLD, place | {"seqs": seqs}), (_REVIVE, place | columns)]


def mark_of(operation: UUID) -> str:
    """Return what the ids of the deliveries end in that an operation makes, so that they can be told from others.

    That takes 32 of their 74 random bits. The others are more than enough for ids of the same millisecond.
    """
    return str(operation)[-8:]


_PUT_OFF = f"""
update outbox.bulk_operations
set allowed_at = clock_timestamp() + make_interval(secs => %(seconds)s), failures = failures + %(failures)s,
    last_error = %(reason)s
where {_OURS} returning failures
"""


async def put_off_bulk(
    database: Database, holder: UUID, work: Work, reason: str, *, seconds: float, failed: bool
) -> int:
    """Let an operation wait, and say why; return how many times in a row it failed, 0 where it is not ours any more."""
    parameters = {"operation": work.id, "holder": holder, "reason": reason, "seconds": seconds, "failures": int(failed)}
    rows = await database.fetch_named(_PUT_OFF, parameters)
    return rows[0][0] if rows else 0


_END = f"""
update outbox.bulk_operations
set state = %(state)s, last_error = %(reason)s::text, passed_over = passed_over + %(passed)s
where {_OURS}
"""


async def end_bulk(database: Database, holder: UUID, work: Work, *, passed_over: int = 0, error: str = "") -> None:
    """End an operation that is at its end, or that can never be: running → done, or failed with this error."""
    state = "failed" if error else "done"
    parameters = {
        "operation": work.id,
        "holder": holder,
        "state": state,
        "reason": error or None,
        "passed": passed_over,
    }
    await database.fetch_named(_END, parameters)


# One that waits for a backlog, or after an error, does not keep a relay from being drained.
_RUNNING = """
select true from outbox.bulk_operations
where state = 'running' and (last_error is null or allowed_at <= clock_timestamp()) limit 1
"""


async def is_bulk_running(database: Database) -> bool:
    """Tell whether an operation runs and waits for nothing but its rate."""
    return bool(await database.fetch(_RUNNING))
