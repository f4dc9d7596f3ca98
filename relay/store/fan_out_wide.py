"""An event that very many subscriptions match: its deliveries are made by the server, and no id comes to the process.

A take brings at most WIDE_FROM matches of a kind and one more, which tells that there are others. Such an event is
taken alone. What its filters say is known before, by their hashes: the server picks the subscriptions that have one of
those. It has the last word on which filters there are: where one was not asked yet, nothing is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from outbox.control.store.lanes import LANE_OF_EVENT, PARKED, RUNNABLE, SORTING
from relay.store.arrays import Uuids
from relay.store.subscriptions import MATCHED

if TYPE_CHECKING:
    import psycopg

    from relay.store.database import Database
    from relay.store.filters import Answers
    from relay.store.rows import Taken

__all__ = ["WIDE_FROM", "WideBirths", "find_filters", "resolve_wide"]

WIDE_FROM = 2000

_MATCHING = """select distinct st.subscription_id as id from outbox.subscription_types st
        where st.tenant = any(array[%(tenant)s, '*']) and st.pattern = any(outbox.patterns_of(%(type)s))"""
_WITH_THEIR_FILTERS = f"""select m.id, s.filter_hash, s.ordered from ({_MATCHING}) m
    cross join lateral (
        select filter_hash, ordered from outbox.subscriptions where id = m.id and {MATCHED} limit 1) s"""


class WideBirths(NamedTuple):
    """What became of one event for very many: nothing at all where it is `unasked` or `unordered`.

    unasked: a subscription has a filter that was not asked. unordered: its deliveries would be in lanes, which was not
    allowed. made: deliveries. gave_up: of how many subscriptions the filter came to no result. parked: the
    subscriptions in whose lane there was a delivery already; somebody has to look at these lanes now.
    """

    unasked: bool
    unordered: bool
    made: int
    gave_up: int
    parked: list[bytes]


# now() is the begin of the transaction: polls, which look back half a second, then leave most of these to the sweep,
# which brings them in slices. `r` is what RUNNABLE and its like are asked of.
_RESOLVE = f"""
with e as materialized (
    select available_at, {LANE_OF_EVENT} as lane from outbox.events where seq = %(seq)s limit 1),
matching as materialized (
    select m.id as subscription_id, m.filter_hash, case when m.ordered then e.lane end as lane
    from ({_WITH_THEIR_FILTERS}) m, e
    where %(about)s::text is null or outbox.text_id('sub', m.id) <> %(about)s::text),
refused as materialized (
    select coalesce(bool_or(filter_hash is not null and filter_hash <> all(%(asked)b)), false) as unasked,
           not %(may_order)s and coalesce(bool_or(lane is not null), false) as unordered from matching),
getting as materialized (
    select r.subscription_id, r.lane,
           case when r.lane is null then false else coalesce({RUNNABLE}, {PARKED}, {SORTING}, false) end as parked
    from matching r, refused
    where not unasked and not unordered and (filter_hash is null or filter_hash = any(%(matched)b))),
born as (
    insert into outbox.deliveries (id, event_seq, subscription_id, due_at, event_bytes, boost_seconds, lane, not_before)
    select outbox.uuid7(), %(seq)s, subscription_id,
           case when parked then 'infinity'
                else greatest(available_at, now()) - make_interval(secs => coalesce(%(boost)s, 0)) end,
           %(size)s, %(boost)s, g.lane, case when parked and available_at > now() then available_at end
    from getting g, e),
told as materialized (
    select (select count(*) from getting)::integer as births,
           array(select subscription_id from getting where parked) as parked,
           array(select subscription_id from matching where filter_hash = any(%(gave_up)b)) as gave_up),
resolved as (
    insert into outbox.resolutions (first_seq, seqs, matches, gave_up_seqs, gave_up_subscriptions)
    select %(seq)s, array[%(seq)s::bigint], array[births],
           case when gave_up <> '{{}}' then array_fill(%(seq)s::bigint, array[cardinality(gave_up)]) end,
           nullif(gave_up, '{{}}')
    from told, refused where not unasked and not unordered)
select unasked, unordered, births, cardinality(gave_up), parked from told, refused
"""


async def resolve_wide(
    connection: psycopg.AsyncConnection[Any], taken: Taken, boost_seconds: int | None, told: Answers, *, may_order: bool
) -> WideBirths:
    """taken → due or parked: make the deliveries of one event for everybody who gets it, and commit.

    `may_order`: the take left out no earlier event, so deliveries may be put into lanes.
    """
    asked = {
        "seq": taken.seq, "tenant": taken.tenant, "type": taken.type, "about": taken.about, "size": taken.size,
        "boost": boost_seconds, "may_order": may_order,
        "asked": Uuids(list(told.names)), "matched": Uuids(list(told.matched)), "gave_up": Uuids(list(told.gave_up)),
    }  # fmt: skip
    cursor = await connection.execute(_RESOLVE, asked, binary=True)
    births = WideBirths(*(await cursor.fetchall())[0])
    if not births.unasked and not births.unordered:
        await connection.execute("commit")
    return births


_FILTERS = f"""
select array_agg(filter_hash), array_agg(id) from (
    select distinct on (filter_hash) filter_hash, id from ({_WITH_THEIR_FILTERS}) m
    where filter_hash is not null order by filter_hash) f"""


async def find_filters(database: Database, tenant: str, type_: str) -> dict[bytes, bytes]:
    """Return the hash of each filter on events of this kind, with one subscription that has it. Changes nothing."""
    ((hashes, ids),) = await database.fetch_named(_FILTERS, {"tenant": tenant, "type": type_})
    return dict(zip(hashes or (), ids or (), strict=True))
