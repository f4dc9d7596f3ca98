"""An event that very many subscriptions match: its deliveries are made by the server, and no id comes to the process.

A take brings at most WIDE_FROM matches of a kind and one more, which tells that there are others. Such an event is
taken alone. Where one of its subscriptions has a filter or asks for order, all matches are brought, for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.store.arrays import Texts
from relay.store.subscriptions import MATCHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from relay.store.rows import Taken

__all__ = ["ALL", "WIDE_FROM", "is_plain", "resolve_wide"]

WIDE_FROM = 2000
ALL = 2**31 - 1  # as a bound of the matches: bring each

_MATCHING = """select distinct st.subscription_id as id from outbox.subscription_types st
        where st.tenant = any(array[{tenant}, '*']) and st.pattern = any(outbox.patterns_of({type}))"""

_PLAIN = f"""
select not exists (
    select from unnest(%b, %b) k(tenant, type)
    cross join lateral ({_MATCHING.format(tenant="k.tenant", type="k.type")}) m
    cross join lateral (select from outbox.subscriptions
                        where id = m.id and (filter_hash is not null or ordered) limit 1) s)
"""

# now() is the begin of the transaction: polls, which look back half a second, then leave most of these to the sweep,
# which brings them in slices.
_RESOLVE = f"""
with matching as materialized (
    select m.id from ({_MATCHING.format(tenant="%s", type="%s")}) m
    cross join lateral (select from outbox.subscriptions where id = m.id and {MATCHED} limit 1) s
    where outbox.text_id('sub', m.id) is distinct from %s),
born as (
    insert into outbox.deliveries (id, event_seq, subscription_id, due_at, event_bytes, boost_seconds)
    select outbox.uuid7(), %s, id, greatest(available_at, now()) - make_interval(secs => coalesce(%s, 0)), %s, %s
    from matching, (select available_at from outbox.events where seq = %s limit 1) e
    returning id),
counted as (select count(*)::integer as n from born)
insert into outbox.resolutions (first_seq, seqs, matches) select %s, array[%s::bigint], array[n] from counted
returning matches[1]
"""


async def is_plain(connection: psycopg.AsyncConnection[Any], kinds: Sequence[tuple[str, str]]) -> bool:
    """Tell whether no subscription that matches events of these kinds (tenant, type) has a filter or asks for order."""
    tenants, types = (Texts([word.encode() for word in words]) for words in zip(*kinds, strict=True))
    cursor = await connection.execute(_PLAIN, (tenants, types), binary=True)
    ((plain,),) = await cursor.fetchall()
    return bool(plain)


async def resolve_wide(connection: psycopg.AsyncConnection[Any], taken: Taken, boost_seconds: int | None) -> int:
    """taken → due: make the deliveries of one event for everybody who matches it, and commit; return how many."""
    seq = taken.seq
    asked = (taken.tenant, taken.type, taken.about, seq, boost_seconds, taken.size, boost_seconds, seq, seq, seq)
    cursor = await connection.execute(_RESOLVE, asked)
    ((count,),) = await cursor.fetchall()
    await connection.execute("commit")
    return int(count)
