"""The list of events, newest first: what passes the filters, and what became of each.

The state of an event is in no row: it is made of its resolution, deliveries, attempts and dead letters. So a page of
one state looks at a bounded number of events; but what waits to be resolved, and what has a dead letter, is walked by
an index of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import Connection, text

from outbox._text import brief
from outbox.control.event_documents import ListedEvent, listed_event
from outbox.control.fates import fates
from outbox.control.filters import SEQ_OF_EVENT, FilterError, Filters
from outbox.control.pages import Key, Listing, Page
from outbox.control.planned import along_indexes
from outbox.control.tenancy import own
from outbox.control.walk import Walk

__all__ = ["LOOK_BACK", "STATES", "EventState", "list_events"]

EventState = Literal["pending", "under_way", "delivered", "partly_delivered", "dead", "unmatched", "cancelled"]
STATES: tuple[EventState, ...] = get_args(EventState)
"""The states that events are listed by."""

_LISTING = Listing(
    name="events",
    columns={"at": "w.recorded_at", "type": "w.type", "tenant": "w.tenant", "key": "w.key", "event": "w.seq",
             "text": """exists (select from outbox.events p
                               where p.seq = w.seq and strpos(substr(p.payload, 1, 65536), :text) > 0)"""},
    own=own("w.tenant"),
    keys=(Key("w.seq", "seq", "bigint", descending=True),),
)  # fmt: skip
LOOKED = 10_000
"""How many events one page of the list looks at, at most."""
LOOKED_FOR_TEXT = 1_000
"""The same where text is looked for: the first 64 KiB of payloads are read."""

# The resolution of an event begins at or before it, nearly always just before: look back so many batches, no further.
LOOK_BACK = 200

_WALK = Walk(
    listing=_LISTING,
    table="outbox.events",
    time="recorded_at",
    columns="seq, id, type, tenant, key, recorded_at, available_at, priority, true as kept",
)
_WAITING = replace(
    _WALK,
    table="""(
    select q.event_seq as seq, e.* from outbox.pending q cross join lateral (
        select id, type, tenant, key, recorded_at, available_at, priority from outbox.events
        where seq = q.event_seq limit 1) e)""",
)
# One row an event; OFFSET lets the planner ask it of each row, along the index, as `exists` alone would not.
_DEAD = replace(
    _WALK,
    table="""(
    select event_seq as seq, event_id as id, type, tenant, key, recorded_at from outbox.dead_letters l
    where not exists (select from outbox.dead_letters o
                      where o.event_seq = l.event_seq and o.delivery_id > l.delivery_id offset 0))""",
    columns="seq, id, type, tenant, key, recorded_at",
    details="""
    select e.available_at, e.priority, e.seq is not null as kept
    from (values (1)) one left join lateral (
        select seq, available_at, priority from outbox.events where seq = f.seq limit 1) e on true""",
)
LOOKED_BY_INDEX = 2_000
"""How many events a page looks at where an index leads to those of its state."""
LOOKED_FOR_STATE = 250
"""How many events a page asks for their state, at most, where no index knows it."""


def list_events(
    connection: Connection,
    tenant: str | None,
    filters: Filters,
    state: EventState | None = None,
    *,
    after: str | None = None,
) -> Page[ListedEvent]:
    """Return the newest events that pass the filters, each with its state and counts of subscriptions.

    since and until go by the order of recording. An event that was inserted with a recorded_at of its own is not found
    by them.

    Args:
        connection: to the database.
        tenant: who asks; None is the operator.
        filters: which events.
        state: only these; None is all. An event that is past its retention is listed as dead only.
        after: the cursor of the page before.

    Raises:
        FilterError: no such state, or a cursor of another list.
    """
    if state is not None and state not in list(STATES):
        raise FilterError(f"state: {brief(state)} is not one of {', '.join(STATES)}")
    walk = {"pending": _WAITING, "dead": _DEAD}.get(state or "")
    if state is None or walk:
        looked = LOOKED if state is None else LOOKED_BY_INDEX
        page = _walked(connection, tenant, filters, after, walk or _WALK, filters.limit, looked)
    else:
        page = _walked(connection, tenant, filters, after, _WALK, max(filters.limit, LOOKED_FOR_STATE), LOOKED)
    return _told(connection, page, filters.limit, state)


def _walked(
    connection: Connection, tenant: str | None, filters: Filters, after: str | None, walk: Walk, limit: int, looked: int
) -> Page[Any]:
    """Return so many rows at most that pass the filters, of so many that are looked at where these ask for it."""
    where, parameters = _LISTING.where(tenant, filters, after)
    along = [_LISTING.beyond] if after is not None else []
    for name, sign in (("since", ">="), ("until", "<")):
        if getattr(filters, name) is not None:
            along.append(f"w.seq {sign} :{name}_seq")
            parameters[f"{name}_seq"] = _seq_at(connection, getattr(filters, name))
    asks = tenant is not None or bool(set(filters.given()) - {"since", "until"})
    one = f"(select * from {walk.table} one where seq = ({SEQ_OF_EVENT}) offset 0)"  # noqa: S608 - constants
    return walk.page(
        connection,
        along=" and ".join(along) or "true",
        passing=where,
        parameters=parameters | {"limit": limit + 1},
        branches=None,
        looked=min(looked, LOOKED_FOR_TEXT) if filters.text is not None else looked if asks else limit + 1,
        make=lambda row: row,
        table=None if filters.event is None else one,
    )


def _told(connection: Connection, page: Page[Any], limit: int, state: EventState | None) -> Page[ListedEvent]:
    """Return the rows that are of the state as documents: the first of them, and where the list goes on."""
    rows = _resolved(connection, page.items)
    became = fates(connection, {row.seq: row.id for row in rows})
    told = [(row.seq, listed_event(row, fate)) for row, fate in zip(rows, became, strict=True)]
    of_state = [(seq, item) for seq, item in told if state in (None, item.state)]
    shown = tuple(item for _, item in of_state[:limit])
    if len(of_state) > limit:
        return Page(shown, _LISTING.cursor_of([of_state[limit - 1][0]]))
    searched = rows[-1].recorded_at if page.next is not None and len(shown) < len(rows) else None
    return Page(shown, page.next, page.searched_until or searched)


# Of each event the batch that resolved it last; those that begin below the first one are looked at as far as of one.
_RESOLVED_OF = text("""
with batches as materialized (
    (select seqs, matches, at from outbox.resolutions
     where first_seq >= cast(:low as bigint) and first_seq <= cast(:high as bigint))
    union all
    (select seqs, matches, at from (
        select seqs, matches, at from outbox.resolutions where first_seq < cast(:low as bigint)
        order by first_seq desc limit :look_back) below
     where seqs[cardinality(seqs)] >= cast(:low as bigint))),
resolved as (
    select distinct on (u.seq) u.seq, u.matches from batches b, unnest(b.seqs, b.matches) u(seq, matches)
    where u.seq = any(cast(:seqs as bigint[])) order by u.seq, b.at desc)
select a.seq, r.matches as matched, exists (select from outbox.pending p where p.event_seq = a.seq) as pending
from unnest(cast(:seqs as bigint[])) with ordinality a(seq, place) left join resolved r on r.seq = a.seq
order by a.place
""")


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A row of the walk with what its resolution says."""

    row: Any
    pending: bool
    matched: int | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


def _resolved(connection: Connection, rows: Sequence[Any]) -> list[_Resolved]:
    """Return the rows, each with whether it is pending and how many it matched: for all of them in one statement."""
    if not rows:
        return []
    seqs = [row.seq for row in rows]
    bound = {"seqs": seqs, "low": min(seqs), "high": max(seqs), "look_back": LOOK_BACK}
    with along_indexes(connection):
        found = connection.execute(_RESOLVED_OF, bound).all()
    return [_Resolved(row, one.pending, one.matched) for row, one in zip(rows, found, strict=True)]


# Halves what is left until one number is: about 24 look-ups. What was recorded later has a higher number, nearly.
_SEQ_AT = """
with recursive half(low, high, step) as (
    select (select seq from outbox.events order by seq limit 1),
           (select seq + 1 from outbox.events order by seq desc limit 1), 0
    union all
    select case when m.recorded_at < {moment} then m.seq + 1 else low end,
           case when m.recorded_at < {moment} then high else (low + high) / 2 end, step + 1
    from half cross join lateral (
        select seq, recorded_at from outbox.events where seq >= (low + high) / 2 order by seq limit 1) m
    where low < high and step < 64)
select coalesce((select low from half order by step desc limit 1), 1)
"""


def _seq_at(connection: Connection, when: datetime | timedelta) -> int:
    """Return the number from which on events were recorded at this time or later."""
    value: object
    if isinstance(when, timedelta):
        moment, value = "statement_timestamp() - make_interval(secs => :moment)", when.total_seconds()
    else:
        moment, value = ":moment", when
    with along_indexes(connection):
        found: int = connection.execute(text(_SEQ_AT.format(moment=moment)), {"moment": value}).scalar_one()
    return found
