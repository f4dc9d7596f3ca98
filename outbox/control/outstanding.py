"""Outstanding deliveries, the longest due first, a bounded number of rows a page however many wait.

The index knows what each subscription has, by time. So a page begins with the first row of each subscription, walks the
subscriptions whose first rows are the earliest, and merges what it found. What the index does not know (type, key,
event, lease) is asked of the rows that it leads to; where those do not fill the page, it says until when it searched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, text

from outbox.control.filters import Filters, bound_of
from outbox.control.pages import Key, Listing, Page
from outbox.control.planned import along_indexes
from outbox.control.tenancy import own

Made = TypeVar("Made")

__all__ = ["LOOKED", "OUTSTANDING", "OutstandingState", "walk_outstanding"]

OutstandingState = Literal["due", "waiting", "parked", "leased", "held", "paused", "disabled", "removed"]

LOOKED = 5_000
"""How many deliveries one page looks at, at most, where it asks what no index knows."""
MOST_BRANCHES = 50  # subscriptions that are then walked side by side, each with its share of the rows

# Times are compared with the statement's beginning, here and along the index, so that both say the same of a row.
_STATE = """
case when s.id is null or s.removed_at is not null then 'removed'
     when d.lease is not null and d.due_at > statement_timestamp() then 'leased'
     when s.disabled_at is not null then 'disabled'
     when s.paused_at is not null then 'paused'
     when d.due_at = 'infinity' then 'parked'
     when d.due_at > statement_timestamp() then 'waiting'
     when s.held_until > statement_timestamp() then 'held'
     else 'due' end"""

_FOUND = f"""
d.id, d.event_seq, e.id as event_id, e.type, e.tenant, e.key, d.subscription_id, s.shown_url as url,
{_STATE} as state, nullif(d.due_at, 'infinity') as due_at, d.attempts, d.crashes"""
_JOINS = """
left join outbox.subscriptions s on s.id = d.subscription_id
left join lateral (select id, type, tenant, key from outbox.events where seq = d.event_seq limit 1) e on true"""
OUTSTANDING = f"select {_FOUND} from outbox.deliveries d {_JOINS}"  # noqa: S608 - the parts are constants
"""Every outstanding delivery d with its event e and its subscription s, as a document is made of it."""

_ALONG: dict[OutstandingState, str] = {
    "due": "w.due_at <= statement_timestamp()",
    "held": "w.due_at <= statement_timestamp()",
    "waiting": "w.due_at > statement_timestamp() and w.due_at < 'infinity'",
    "leased": "w.due_at > statement_timestamp() and w.due_at < 'infinity'",
    "parked": "w.due_at = 'infinity'",
}
"""What the index knows of a state; it need not be all of it."""

_SENDS = "s.removed_at is null and s.disabled_at is null and s.paused_at is null"
SUBSCRIPTIONS_OF: dict[OutstandingState, str] = {
    "due": f"{_SENDS} and (s.held_until > statement_timestamp()) is not true",
    "held": f"{_SENDS} and s.held_until > statement_timestamp()",
    "waiting": _SENDS,
    "parked": _SENDS,
    "leased": "s.removed_at is null",
    "paused": "s.paused_at is not null and s.removed_at is null",
    "disabled": "s.disabled_at is not null and s.removed_at is null",
    "removed": "s.removed_at is not null",
}
"""Which subscriptions can have deliveries of a state."""
_INDEX_DECIDES: tuple[OutstandingState, ...] = ("due", "held", "parked", "removed")
"""States of which each row that the index leads to is: nothing more is asked of it."""


def _keys(of: str) -> tuple[Key, ...]:
    return (Key(f"{of}.due_at", "due_at", "timestamptz"), Key(f"{of}.id", "id", "uuid"))


_LISTING = Listing(
    name="deliveries",
    columns={"type": "e.type", "tenant": "e.tenant", "key": "e.key", "at": "d.due_at",
             "subscription": "d.subscription_id", "event": "d.event_seq"},
    own=own("s.tenant"),
    keys=_keys("d"),
)  # fmt: skip
_BEYOND = replace(_LISTING, keys=_keys("w")).beyond
_FOREVER = datetime.max.replace(tzinfo=UTC)


def walk_outstanding(
    connection: Connection,
    tenant: str | None,
    filters: Filters,
    state: OutstandingState | None,
    *,
    after: str | None,
    make: Callable[[Any], Made],
) -> Page[Made]:
    """Return a page of outstanding deliveries as `make` makes them of rows.

    Args:
        connection: to the database.
        tenant: who asks; None is the operator.
        filters: since and until are about due_at.
        state: only these; None is all.
        after: the cursor of the page before.
        make: makes a document of a row.

    Raises:
        FilterError: a filter that does not apply here, or a cursor of another list.
    """
    passing, parameters = _LISTING.where(tenant, filters, after)
    along = ["true" if state is None else _ALONG.get(state, "true")]
    along += [_BEYOND] if after is not None else []
    along += [bound_of(name, "w.due_at", filters) for name in ("since", "until") if getattr(filters, name) is not None]
    of = [_LISTING.own, "true" if state is None else SUBSCRIPTIONS_OF[state]]
    of += [] if filters.subscription is None else ["s.id = :subscription"]
    each = filters.limit + 1
    if {"since", "until", "subscription"}.issuperset(filters.given()) and state in (None, *_INDEX_DECIDES):
        branches = each
    else:
        branches = 1 if filters.subscription is not None else MOST_BRANCHES
        each = max(each, LOOKED // branches)
    parameters |= {"branches": branches, "each": each}
    if state is not None:
        passing, parameters["state"] = f"{passing} and {_STATE} = :state", state
    with along_indexes(connection):
        rows = connection.execute(text(_statement(" and ".join(along), " and ".join(of), passing)), parameters).all()
    page = _LISTING.page([row for row in rows if row.id is not None], filters.limit, make)
    edge = rows[0]
    if page.next is not None or edge.edge_id is None:
        return page
    return Page(page.items, _LISTING.cursor_of([edge.edge_due_at, edge.edge_id]), edge.edge_due_at or _FOREVER)


def _statement(along: str, of: str, passing: str) -> str:
    """Return the query of a page; its first row, which has no delivery where none was found, says how far it looked.

    A subscription beyond those that are walked, and one that has more than its share, each end what was searched.
    """
    return f"""
with heads as materialized (
    select h.* from outbox.subscriptions s cross join lateral (
        select w.subscription_id, w.due_at, w.id from outbox.deliveries w
        where w.subscription_id = s.id and {along} order by w.due_at, w.id limit 1) h
    where {of} order by h.due_at, h.id limit :branches + 1),
beyond as (select due_at, id from heads order by due_at, id offset :branches),
looked as materialized (
    select x.* from (select subscription_id from heads order by due_at, id limit :branches) b cross join lateral (
        select w.* from outbox.deliveries w where w.subscription_id = b.subscription_id and {along}
        order by w.due_at, w.id limit :each) x),
edge as (
    select due_at, id from (
        (select distinct on (subscription_id) due_at, id from looked
         where subscription_id in (select subscription_id from looked group by subscription_id having count(*) = :each)
         order by subscription_id, due_at desc, id desc)
        union all
        (select l.due_at, l.id from looked l, beyond b where (l.due_at, l.id) < (b.due_at, b.id)
         order by l.due_at desc, l.id desc limit 1)) ends
    order by due_at, id limit 1),
found as (
    select {_FOUND} from (select * from looked order by due_at, id offset 0) d {_JOINS}
    where {passing} and ((d.due_at, d.id) <= (select due_at, id from edge)) is not false
    order by d.due_at, d.id limit :limit)
select nullif(edge.due_at, 'infinity') as edge_due_at, edge.id as edge_id, f.*
from (values (1)) one left join edge on true left join found f on true
order by f.due_at nulls last, f.id
"""  # noqa: S608 - the parts are constants; every value is a parameter
