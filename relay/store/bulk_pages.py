"""What a bulk operation comes by, a page at a time: dead letters, what waits for a retry, or events of the past.

The same statements count in a dry run and read for the relay that puts back. They wait for nobody and change nothing.
Each looks at a bounded number of rows, and answers with those that are wanted and the last one it looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BATCH", "LOOKED_AT", "PHASES", "Found", "Page", "Work", "page_of", "page_statement", "utc"]

BATCH = 500  # rows that one transaction puts back at most
LOOKED_AT = 5_000  # rows in one page at most, where few of them are wanted

Phase = Literal["dead", "waiting", "events"]
PHASES: Mapping[str, tuple[Phase, ...]] = {
    "recover": ("dead", "waiting"), "redrive": ("dead",), "replay": ("events",), "backfill": ("events",),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An operation as far as it is: what it wants, and the place after which the next page begins.

    Times are text, UTC. filter: the subscription's, where one is asked. room: how many may be put back now.
    is_behind: too much of its subscription is outstanding for more.
    """

    kind: str
    phase: Phase
    subscription_id: UUID | None
    tenant: str | None
    parameters: Mapping[str, Any]
    started_at: str
    up_to_seq: int
    after_at: str | None = None
    after_id: UUID | None = None
    after_seq: int = -1
    id: UUID | None = None
    filter: str | None = None
    room: int = BATCH
    is_behind: bool = False
    is_removed: bool = False

    def next_phase(self) -> Work | None:
        """Return the work of the phase after this one; None after the last."""
        phases = PHASES[self.kind]
        left = phases[phases.index(self.phase) + 1 :]
        return replace(self, phase=left[0], after_at=None, after_id=None, after_seq=-1) if left else None

    def after(self, place: Found) -> Work:
        """Return the work that is left after this row."""
        if self.phase == "events":
            return replace(self, after_seq=place.event_seq)
        return replace(self, after_at=place.at, after_id=place.id)


@dataclass(frozen=True, slots=True)
class Found:
    """One row of a page. id: of the dead letter, or of the delivery that waits; None for an event without either.

    wanted: it is to be put back; possible: and it can be. event_bytes: of its payload, where a filter will read it.
    """

    id: UUID | None
    event_seq: int
    subscription_id: UUID | None
    at: str | None
    wanted: bool
    possible: bool
    event_bytes: int


@dataclass(frozen=True, slots=True)
class Page:
    """What a look found. to_put_back: in order, at most `room`. left: the work after it. ended: the phase is over."""

    to_put_back: tuple[Found, ...]
    passed_over: int
    left: Work
    ended: bool


def page_of(work: Work, rows: Sequence[Sequence[Any]], *, look: int = LOOKED_AT) -> Page:
    """Return the rows of `page_statement` as a page."""
    found, passed_over = [], 0
    left, ended = work, not rows or rows[-1][7] < look
    for place, row in enumerate(rows, 1):
        one = Found(_uuid(row[0]), row[1], _uuid(row[2]), *row[3:7])
        left = work.after(one)
        passed_over += one.wanted and not one.possible
        if one.wanted and one.possible:
            found.append(one)
        if len(found) == work.room:
            ended = ended and place == len(rows)
            break
    return Page(tuple(found), passed_over, left, ended)


def _uuid(value: bytes | UUID | None) -> UUID | None:
    return UUID(bytes=value) if isinstance(value, bytes) else value


def utc(moment: str) -> str:
    """Return the SQL for a time as text that every DateStyle reads."""
    return f"""to_char({moment} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


_ANY_TYPE = """(%(type)s::text is null or %(type)s = '*' or l.type = %(type)s
     or right(%(type)s, 2) = '.*' and starts_with(l.type, left(%(type)s, -1)))"""

# Of one subscription its index is used, else that of the time. died_at before the start: what dies again stays dead.
_DEAD = f"""
select delivery_id, event_seq, subscription_id, {utc("died_at")}, wanted, possible, 0, looked from (
    select l.*, row_number() over (order by l.died_at, l.delivery_id) as number, count(*) over () as looked,
           {_ANY_TYPE} and (%(tenant)s::text is null or l.tenant = %(tenant)s)
           and (%(reason)s::text is null or l.reason = %(reason)s)
           and (%(asking)s::text is null or l.tenant = %(asking)s and s.tenant is distinct from '*') as wanted,
           s.id is not null and s.removed_at is null and l.payload is not null as possible
    from (select * from outbox.dead_letters
          where {{mine}} and died_at < least(%(started_at)s::timestamptz, %(until)s::timestamptz)
            and died_at >= greatest(%(since)s::timestamptz, %(after_at)s::timestamptz, '0001-01-01Z')
            and (%(after_at)s::timestamptz is null or died_at > %(after_at)s::timestamptz
                 or delivery_id > %(after_id)s::uuid)
          order by died_at, delivery_id limit %(look)s) l
    left join outbox.subscriptions s on s.id = l.subscription_id) l
where wanted or number = looked order by number
"""
_DEAD_OF_ONE = _DEAD.format(mine="subscription_id = %(subscription)s::uuid")
_DEAD_OF_ALL = _DEAD.format(mine="%(subscription)s::uuid is null")

# What was made due is not met again, whatever became of it: it is due, leased, gone, or was attempted since the start.
_WAITING = f"""
select id, event_seq, subscription_id, {utc("due_at")}, wanted, true, 0, looked from (
    select d.*, row_number() over (order by d.due_at, d.id) as number, count(*) over () as looked,
           d.lease is null and d.attempts > 0 and not exists (
               select from outbox.attempts a where a.delivery_id = d.id and a.at >= %(started_at)s::timestamptz)
           and (%(since)s::timestamptz is null or exists (
               select from outbox.attempts a where a.delivery_id = d.id and a.at >= %(since)s::timestamptz)) as wanted
    from (select id, event_seq, subscription_id, due_at, lease, attempts from outbox.deliveries
          where subscription_id = %(subscription)s::uuid and due_at < 'infinity'
            and due_at >= coalesce(%(after_at)s::timestamptz, clock_timestamp())
            and (%(after_at)s::timestamptz is null or due_at > %(after_at)s::timestamptz or id > %(after_id)s::uuid)
          order by due_at, id limit %(look)s) d) d
where wanted or number = looked order by number
"""

# replay: what ended for this subscription. backfill: what matches its types and never was its delivery. Neither takes
# what is pending or on its way. The index of attempts is read from the first event of the page to the last.
_EVENTS = f"""
with looked as materialized (
    select seq, type, tenant, key, recorded_at, octet_length(payload) as bytes from outbox.events
    where seq > %(after_seq)s and seq <= %(up_to_seq)s order by seq limit %(look)s),
bounds as materialized (select min(seq) as low, max(seq) as high, count(*) as number from looked),
it as materialized (
    select id, tenant, types, outbox.text_id('sub', id) as name from outbox.subscriptions
    where id = %(subscription)s::uuid and removed_at is null),
kinds as materialized (
    select k.type, it.types && outbox.patterns_of(k.type) as matches
    from (select distinct type from looked) k cross join it),
outstanding as materialized (
    select event_seq from outbox.deliveries where subscription_id = %(subscription)s::uuid
    union all select event_seq from outbox.pending
    where event_seq between (select low from bounds) and (select high from bounds)),
ended as materialized (
    select distinct event_seq from outbox.attempts
    where event_seq between (select low from bounds) and (select high from bounds)
      and subscription_id = %(subscription)s::uuid
      and case when %(backfill)s::boolean then verdict <> 'test' else verdict in ('delivered', 'cancelled') end),
buried as materialized (
    select distinct on (event_seq) event_seq, delivery_id, payload is not null as readable from outbox.dead_letters
    where event_seq between (select low from bounds) and (select high from bounds)
      and subscription_id = %(subscription)s::uuid order by event_seq, delivery_id)
select delivery_id, seq, %(subscription)s::uuid, null::text, wanted, coalesce(readable, true), bytes,
       (select number from bounds)
from (
    select l.*, b.delivery_id, b.readable,
           it.id is not null and {_ANY_TYPE}
           and (%(since)s::timestamptz is null or l.recorded_at >= %(since)s::timestamptz)
           and (%(until)s::timestamptz is null or l.recorded_at < %(until)s::timestamptz)
           and (%(asking)s::text is null or l.tenant = %(asking)s)
           and l.seq not in (select event_seq from outstanding)
           and case when %(backfill)s::boolean
                    then b.event_seq is null and l.seq not in (select event_seq from ended)
                         and l.type in (select type from kinds where matches)
                         and not (starts_with(l.type, 'relay.') and l.key is not distinct from it.name)
                    else b.event_seq is not null or l.seq in (select event_seq from ended) end as wanted
    from looked l left join it on it.tenant in (l.tenant, '*') left join buried b on b.event_seq = l.seq) l
where wanted or seq = (select high from bounds) order by seq
"""


def page_statement(work: Work, *, look: int = LOOKED_AT) -> tuple[str, dict[str, object]]:
    """Return the statement that reads the next page of at most `look` rows, and its parameters.

    Its rows: id, event_seq, subscription_id, at, wanted, possible, event_bytes, and how many it looked at.
    """
    wanted = {name: work.parameters.get(name) for name in ("type", "tenant", "reason", "since", "until")}
    parameters = wanted | {
        "subscription": work.subscription_id, "asking": work.tenant, "started_at": work.started_at, "look": look,
        "after_at": work.after_at, "after_id": work.after_id, "after_seq": work.after_seq, "up_to_seq": work.up_to_seq,
        "backfill": work.kind == "backfill",
    }  # fmt: skip
    if work.phase == "events":
        return _EVENTS, parameters
    if work.phase == "waiting":
        return _WAITING, parameters
    return (_DEAD_OF_ALL if work.subscription_id is None else _DEAD_OF_ONE), parameters
