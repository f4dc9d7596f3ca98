"""Which subscriptions the events of a take match: read in its snapshot, and joined to the events here.

A take may have as many kinds of event (tenant and type) as events, and whatever the server does for each kind costs
more than the rest of the take. So it does little: it works out which patterns every tenant's events ask for, reads the
rows of outbox.subscription_types that have them, and each subscription once. Which of these is whose match is known by
the patterns of each type, which are worked out here once more.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from outbox._patterns import patterns_of
from outbox.control.store.sendable import BROKEN, MATCHED, NOT_HELD, WANTED
from relay.store.rows import Match

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MATCHES", "MATCHING", "MATCHING_PASSING", "Kind", "matches_of_kinds"]

Kind = tuple[str, str]
"""A tenant and a type."""


# SENDABLE, with a look-up for each: without `offset 0` the planner may read all of outbox.health beforehand.
_SENDABLE = f"{WANTED} and {NOT_HELD} and not {BROKEN[:-1]} offset 0)"


# `asking`: who asks for what, each once: a type, or a name that it is under. union, not union all, so that what a
# thousand types are under is worked out once. `asked`: each pattern once, with all that ask for it. It is looked up by
# itself: before version 17 the planner may read all rows of a tenant instead of looking up `pattern = any(…)`.
# `offset 0`: no join that the planner could turn round. `found` needs no more than so many for each kind: where it has
# all of these, some kind has more than are brought, whatever the others have.
def _matching(passes: str, passed_over: str) -> str:
    """Return the CTEs `matching` and `found` behind `e`.

    `passes`: the condition that some matches of an event of `e` are passed over. passed_over: which.
    """
    return f"""
asking (passes, tenant, name, is_above) as (
    select {passes}, unnest(array[tenant, '*']), type, false from e where type is not null
    union
    select passes, tenant, left(name, -strpos(reverse(name), '.')), true from asking where strpos(name, '.') > 0),
asked as materialized (
    select passes, pattern, array_agg(tenant) as tenants from (
        select passes, tenant, case when is_above then name || '.*' else name end as pattern from asking
        union all
        select passes, tenant, '*' from asking where not is_above and not starts_with(name, 'relay.')) p
    group by passes, pattern),
matching as materialized (
    select a.passes, st.tenant, a.pattern, st.subscription_id as id from asked a cross join lateral (
        select tenant, subscription_id from outbox.subscription_types
        where tenant = any(a.tenants) and pattern = a.pattern{passed_over} offset 0) st),
found as materialized (
    select id, version, {_SENDABLE} as sendable, ordered, filter_hash from outbox.subscriptions
    where id = any(array(select id from matching)) and {MATCHED}
    limit %b * (select count(*) from asking where tenant <> '*' and not is_above))"""


MATCHING = _matching("false", "")
MATCHING_PASSING = _matching(
    "tenant = %b and type = %b", " and not (a.passes and coalesce(filter_hash = any(%b), false))"
)
# A row for each pattern of a tenant's, or of every tenant's ('*'), that somebody has: who. And one of all of these.
# `is true` keeps `in` a look-up in a table of hashes; it would be a join otherwise.
MATCHES = """
select null, tenant, pattern, null, passes, null, null, null, null, null,
       array_agg(id), null::bigint[], null::boolean[], null::boolean[], null::uuid[]
from matching where (id in (select id from found)) is true group by passes, tenant, pattern
union all
select null, null, null, null, null, null, null, null, null, null,
       array_agg(id), array_agg(version), array_agg(sendable), array_agg(ordered),
       case when count(filter_hash) > 0 then array_agg(filter_hash) end
from found
"""


def matches_of_kinds(
    rows: Sequence[Sequence[Any]], kinds: Iterable[Kind], most: int, passing: Kind | None = None
) -> dict[Kind, list[Match]]:
    """Return what the kinds of a take's events match, at most so many each; a kind without a match is not in it.

    Args:
        rows: of MATCHES.
        kinds: of the events, each once.
        most: the limit that the statement had.
        passing: the kind of which some are passed over.
    """
    found: dict[bytes, Match] = {}
    for row in rows:
        if row[2] is None and row[10] is not None:
            matches = map(Match, *(row[10:15] if row[14] is not None else row[10:14]))
            found = {match.subscription_id: match for match in matches}
    listed: dict[tuple[bool, str], dict[str, list[Match]]] = {}
    for row in rows:
        if row[2] is not None:
            listed.setdefault((row[4], row[1]), {})[row[2]] = [found[one] for one in row[10][:most]]
    patterns: dict[str, list[str]] = {}
    matches_of: dict[Kind, list[Match]] = {}
    for kind in kinds:
        tenant, type_ = kind
        asked = patterns.get(type_) or patterns.setdefault(type_, patterns_of(type_))
        owners = (listed.get((kind == passing, owner)) for owner in (tenant, "*"))
        lists = [named[pattern] for named in owners if named for pattern in asked if pattern in named]
        if lists:
            matches_of[kind] = lists[0] if len(lists) == 1 else _united(lists, most)
    return matches_of


def _united(lists: Sequence[Sequence[Match]], most: int) -> list[Match]:
    """Return the matches of several patterns, each once."""
    return list({match.subscription_id: match for match in chain.from_iterable(lists)}.values())[:most]
