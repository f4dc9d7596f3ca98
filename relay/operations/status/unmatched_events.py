"""Events that nobody subscribes to: how many, of which types and tenants, and which type each may have meant.

A type that is misspelt is recorded, resolved and delivered to nobody, and no error tells of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.findings import Action, Finding
from outbox.control.tenancy import operator_only
from outbox.control.times import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from typing import Any

    from sqlalchemy import Connection

__all__ = ["Unmatched", "UnmatchedType", "findings_of_unmatched", "read_unmatched"]

_MOST_BATCHES = 10_000
_MOST_BYTES = 400_000  # of numbers, 8 bytes each or less where they are compressed: 50,000 events and more
_NEWEST = 1_000
_TYPES = 20
_MOST_SUBSCRIBED = 2_000
_NAMED = 3
_LIKE = 0.84
_LONGER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmatchedType:
    """A type that a tenant's newest events had, and that no subscription of theirs asks for.

    `like`: the type that is subscribed to and looks nearly the same, None where none does.
    """

    type: str
    tenant: str
    count: int
    last_at: datetime
    like: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """How many of the events resolved last had no subscriber, and the types of the newest of them.

    `unsubscribed`: the twenty newest types that nobody asks for now, counted among the newest thousand such events.
    """

    of_last: int
    count: int
    types: tuple[str, ...]
    unsubscribed: tuple[UnmatchedType, ...] = ()


# The size of a value is known without reading it. Batches are small where little is recorded, and hold hundreds under
# load.
_UNMATCHED = text("""
with recent as materialized (
    select seqs, matches from (
        select at, seqs, matches, sum(pg_column_size(seqs)) over (order by first_seq desc) as bytes
        from (select * from outbox.resolutions order by first_seq desc limit :batches) newest) added
    where bytes - pg_column_size(seqs) < :bytes and at > clock_timestamp() - interval '1 day'),
unmatched as materialized (
    select u.seq from recent, unnest(recent.seqs, recent.matches) u(seq, matches)
    where 0 = any(recent.matches) and u.matches = 0)
select (select coalesce(sum(cardinality(seqs)), 0) from recent) as looked_at,
       (select count(*) from unmatched) as unmatched,
       array(select seq from unmatched order by seq desc limit :newest) as newest
""")
# With the numbers known when it is planned, it opens the leaves of these events only. A type with a subscriber now was
# refused by a filter, or is subscribed to since. One that is declared is spelt right.
_OF_TYPES = text("""
select type, tenant, count(*) as count, max(recorded_at) as last_at,
       exists (select from outbox.subscription_types t
               where t.tenant = any(array[e.tenant, '*']) and t.pattern = any(outbox.patterns_of(e.type))
              ) as subscribed,
       exists (select from outbox.event_types k where k.type = e.type and k.retired_at is null) as declared
from outbox.events e where seq = any(cast(:seqs as bigint[]))
group by type, tenant order by max(seq) desc
""")
_SUBSCRIBED = text("""
select distinct tenant, pattern from outbox.subscription_types
where tenant = any(cast(:tenants as text[])) and right(pattern, 1) <> '*' order by tenant, pattern limit :most
""")


def read_unmatched(connection: Connection, tenant: str | None) -> Unmatched:
    """Return how many events of the last day nobody wanted, and their types. For the operator only.

    Some 50,000 events are looked at, the newest, more where their numbers compress well; in 10,000 batches at most.
    """
    operator_only(tenant, "status")
    bounds = {"batches": _MOST_BATCHES, "bytes": _MOST_BYTES, "newest": _NEWEST}
    row = connection.execute(_UNMATCHED, bounds).one()
    rows = connection.execute(_OF_TYPES, {"seqs": row.newest}).all() if row.newest else []
    return Unmatched(
        of_last=int(row.looked_at),
        count=row.unmatched,
        types=tuple(sorted({one.type for one in rows[:_TYPES]})),
        unsubscribed=_unsubscribed(connection, [one for one in rows if _is_told(one)][:_TYPES]),
    )


def _is_told(row: Any) -> bool:
    return not row.subscribed and not row.type.startswith("relay.")


def _unsubscribed(connection: Connection, rows: Sequence[Any]) -> tuple[UnmatchedType, ...]:
    if not rows:
        return ()
    asked = {"tenants": sorted({"*", *(row.tenant for row in rows)}), "most": _MOST_SUBSCRIBED}
    subscribed = connection.execute(_SUBSCRIBED, asked).all()
    return tuple(
        UnmatchedType(
            type=row.type,
            tenant=row.tenant,
            count=row.count,
            last_at=row.last_at,
            like=None
            if row.declared
            else _nearest(row.type, [one.pattern for one in subscribed if one.tenant in (row.tenant, "*")]),
        )
        for row in rows
    )


def _nearest(type_: str, subscribed: Iterable[str]) -> str | None:
    """Return the type that this one may be a misspelling of: nearly as long, and nearly all of it alike."""
    near = [one for one in subscribed if abs(len(one) - len(type_)) <= _LONGER]
    near = [one for one in near if _letters(one) != _letters(type_)]
    return next(iter(get_close_matches(type_, near, 1, _LIKE)), None)


def _letters(type_: str) -> str:
    """Return a type without its digits: another version is no misspelling."""
    return "".join(character for character in type_ if not character.isdigit())


def findings_of_unmatched(found: Unmatched, at: datetime) -> Iterator[Finding]:
    """Yield a problem for each type that looks misspelt, three at most, and a note for all others."""
    alike = [one for one in found.unsubscribed if one.like][:_NAMED]
    yield from (_of_misspelt(one, at) for one in alike)
    others = [one for one in found.unsubscribed if one not in alike]
    if others:
        listed = ", ".join(f"{_of(one)} ({one.count:,})" for one in others[:5])
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        yield Finding(
            code="events.unsubscribed",
            subject="events",
            seen=f"nobody subscribes to {listed}{more}, of the last {found.of_last:,} events",
            mend="nothing, if so intended; else subscribe, and relay bulk backfill sends what was missed",
            severity="note",
            action=Action("events", parameters={"state": "unmatched"}),
        )


def _of_misspelt(one: UnmatchedType, at: datetime) -> Finding:
    number = "1 event" if one.count == 1 else f"{one.count:,} events"
    ago = duration((at - one.last_at).total_seconds())
    return Finding(
        code="events.misspelt",
        subject=one.type,
        seen=f"{number} of type {_of(one)}, the last {ago} ago, had no subscriber; did you mean {one.like}, which is"
        " subscribed to?",
        mend="correct the type where it is recorded, or subscribe to this one too;"
        " relay bulk backfill sends what was missed",
        action=Action("events", parameters={"type": one.type, "tenant": one.tenant, "state": "unmatched"}),
    )


def _of(one: UnmatchedType) -> str:
    return f"{one.type} of {one.tenant}" if one.tenant else one.type
