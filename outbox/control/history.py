"""The history: every attempt that is kept, newest first, by what it was about and what came of it.

An index knows the time, the subscription, the event, and which attempts failed. Everything else is asked of the rows
that such an index leads to, a bounded number a page (see walk.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.attempts import ListedAttempt, attempt_fields
from outbox.control.filters import FAILED, SEQ_OF_EVENT, Filters, bound_of
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import own
from outbox.control.walk import Walk
from outbox.ids import EventId

Made = TypeVar("Made")

__all__ = ["LOOKED", "LOOKED_FOR_TEXT", "MOST_BRANCHES", "list_attempts", "walk_attempts"]

LOOKED = 4_000
"""How many attempts one page looks at, at most."""
LOOKED_FOR_TEXT = 1_000
"""The same where text is looked for: responses, and the first 64 KiB of payloads, are read."""
MOST_BRANCHES = 200  # subscriptions of a tenant that are walked side by side; of one with more, all attempts are


RECENT_DAYS = (2,)
"""How many days before it begins a page looks at first. Each day is a leaf of its own: few are opened then."""
_OF_EVENT = f"""(
    select * from outbox.shown_attempts where event_seq = ({SEQ_OF_EVENT}) offset 0)"""  # noqa: S608 - a constant

_TEXT = """(strpos(w.error, :text) > 0
    or exists (select from outbox.attempts a
               where a.delivery_id = w.delivery_id and a.number = w.number and a.at = w.at
                 and (strpos(a.headers, :text) > 0 or position(convert_to(:text, 'UTF8') in a.excerpt) > 0))
    or exists (select from outbox.events p
               where p.seq = w.event_seq and strpos(substr(p.payload, 1, 65536), :text) > 0))"""
_COLUMNS = {"type": "e.type", "tenant": "e.tenant", "key": "e.key", "subscription": "w.subscription_id", "at": "w.at",
            "event": "w.event_seq", "outcome": "w.outcome", "status": "w.status", "text": _TEXT}  # fmt: skip

_ALONG = {"since", "until", "subscription"}  # what the walk itself is bounded by
_LISTING = Listing(
    name="attempts",
    columns=_COLUMNS,
    own=own("s.tenant"),
    keys=(
        Key("w.at", "at", "timestamptz", descending=True),
        Key("w.delivery_id", "delivery_id", "uuid", descending=True),
        Key("w.number", "number", "bigint", descending=True),
    ),
)
_WALK = Walk(
    listing=_LISTING,
    table="outbox.attempts",
    time="at",
    columns="delivery_id, number, at, event_seq, subscription_id, verdict, outcome, status, milliseconds, error",
    branch="subscription_id",
    joins="""
left join lateral (select id, type, tenant, key from outbox.events where seq = w.event_seq limit 1) e on true
left join outbox.subscriptions s on s.id = w.subscription_id""",
    found="w.*, e.id as event_id, e.type, e.tenant, e.key, s.shown_url as subscription_url",
    details="""select url, address, headers, excerpt from outbox.shown_attempts a
    where a.delivery_id = f.delivery_id and a.number = f.number and a.at = f.at
      and a.at >= cast(:floor as timestamptz) limit 1""",  # which the planner knows, so that it leaves out older leaves
)


def list_attempts(
    connection: Connection, tenant: str | None, filters: Filters, *, after: str | None = None
) -> Page[ListedAttempt]:
    """Return the newest attempts that pass the filters, test messages too.

    Args:
        connection: to the database.
        tenant: who asks; None is the operator.
        filters: since and until are about when it was made; tenant, type and key about the event. Of a tenant named
            there only the subscriptions that still exist count.
        after: the cursor of the page before.

    Raises:
        FilterError: a cursor of another list.
    """
    return walk_attempts(connection, tenant, filters, after=after, make=_listed)


def walk_attempts(
    connection: Connection,
    tenant: str | None,
    filters: Filters,
    *,
    after: str | None,
    make: Callable[[Any], Made],
    passing: str = "true",
    failed: bool = False,
) -> Page[Made]:
    """Return a page of attempts as `make` makes them of rows.

    Args:
        connection: to the database.
        tenant: who asks; None is the operator.
        filters: as for `list_attempts`.
        after: the cursor of the page before.
        make: makes a document of a row.
        passing: one more condition, on w (the attempt), e (its event) and s (its subscription).
        failed: whether only rows pass whose outcome is not `delivered`.
    """
    conditions, parameters = _LISTING.where(tenant, filters, after)
    branches = None if filters.event is not None else _branches(connection, tenant, filters)
    asks = passing != "true" or not _ALONG.issuperset(_asked(tenant, filters, branches))
    along = ["w.outcome <> 'delivered'"] if failed or filters.outcome not in (None, "delivered") else []
    along += [_LISTING.beyond] if after is not None else []
    along += [bound_of(name, "w.at", filters) for name in ("since", "until") if getattr(filters, name) is not None]

    return _WALK.page(
        connection,
        along=" and ".join(along) or "true",
        passing=f"{conditions} and {passing}",
        parameters=parameters,
        branches=branches,
        looked=LOOKED_FOR_TEXT if filters.text is not None else LOOKED if asks else filters.limit + 1,
        make=make,
        # The planner must not take the index by time instead: it would read all that came since.
        table=None if filters.event is None else _OF_EVENT,
        recent=_recent(filters, after) if filters.event is None else (),
    )


def _recent(filters: Filters, after: str | None) -> list[datetime]:
    """Return since when to look at first, some days before the page begins."""
    now = datetime.now(UTC)
    try:
        begins = [now] if after is None else [now, datetime.fromisoformat(_LISTING.values_of(after)[0])]
        since, until = (now - at if isinstance(at, timedelta) else at for at in (filters.since, filters.until))
        newest = min(begins if until is None else [*begins, until])
        floors = [newest - timedelta(days) for days in RECENT_DAYS]
    except (ValueError, OverflowError):  # at the end of all times
        return []
    return [floor for floor in floors if since is None or since < floor]


def _asked(tenant: str | None, filters: Filters, branches: Sequence[UUID] | None) -> set[str]:
    """Return the names of the filters; failed for the outcome of that name, asking where a tenant's are picked out."""
    names = set(filters.given()) - ({"outcome"} if filters.outcome == FAILED else set())
    return names | ({"asking"} if tenant is not None and (branches is None or filters.subscription) else set())


_OF_TENANT = text("select id from outbox.subscriptions where tenant = any(cast(:of as text[])) limit :most")


def _branches(connection: Connection, tenant: str | None, filters: Filters) -> Sequence[UUID] | None:
    """Return the subscriptions to walk side by side; None where all attempts are walked as one."""
    if filters.subscription is not None:
        return [filters.given()["subscription"]]
    if tenant is None and filters.tenant is None:
        return None
    of = [tenant] if tenant is not None else [filters.tenant, "*"]
    found = list(connection.execute(_OF_TENANT, {"of": of, "most": MOST_BRANCHES + 1}).scalars())
    return found if len(found) <= MOST_BRANCHES else None


def _listed(row: Any) -> ListedAttempt:
    return ListedAttempt(
        **attempt_fields(row),
        event_id=EventId.maybe(row.event_id),
        type=row.type,
        tenant=row.tenant,
        key=row.key,
        endpoint=row.subscription_url,
    )
