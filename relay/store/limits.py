"""Limits of a rate: how many requests may go out when, over all relays. in_flight.py has the caps on those under way.

A cell (a row of outbox.limits) is GCRA's: `allowed_at` is the time up to which everything given out is paid for. A
process takes slots for a moment ahead, each with its time, and gives back those that it did not use.

A receiver that asks for fewer requests (429, 503) is sent what it was seen to take: each answer counts in its cell,
whichever process got it, and every second or few the rate follows. Where it refused any, the rate is what it took, and
5 % less at least; where it took most of the rate and refused none, the rate rises by 5 %, after some calm seconds
faster and faster. After a deep cut it rises fast at once: what was measured then was mostly the fall. It ends where
half a minute's work stays far below the rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.store.arrays import Floats, Integers, Uuids
from relay.store.database import IMPATIENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Database

__all__ = [
    "AHEAD_SECONDS",
    "CLEAR_LIMITS",
    "FORGOTTEN",
    "LOCK",
    "AskedSlots",
    "GrantedSlots",
    "find_held_cells",
    "make_cells",
    "take_slots",
]

AHEAD_SECONDS = 0.1
FORGOTTEN = "interval '10 minutes'"
"""After so long without an answer, what a receiver took says nothing any more."""
SLOWEST = 0.1  # requests a second: a receiver that takes nothing is asked every ten seconds
GUESSED = 8  # calm seconds after which a rate is no measurement any more: it rises fast, or nobody needs it
FASTEST = 5000  # from here on it is not slowed any more


class AskedSlots(NamedTuple):
    """What one cell is asked for.

    rate: the limit in requests a second; None: only what its receiver was seen to take. back: slots that were not used.
    accepted, refused: answers since the last time, which took some `answer_seconds`. guess: the rate to begin with,
    where this is the first refusal.
    """

    id: bytes
    rate: float | None
    burst: int
    want: int
    back: int
    accepted: int
    refused: int
    guess: float
    answer_seconds: float


class GrantedSlots(NamedTuple):
    """What one cell gave: so many slots, one every `interval` seconds, the first after `first` seconds.

    late: how many seconds after its time a slot may still be used. next: seconds until the slot after them.
    interval is None where there is no limit (any more). slowed_to: what the receiver takes; None: it is not slowed.
    """

    id: bytes
    slots: int
    first: float
    interval: float | None
    late: float
    next: float
    slowed_to: float | None


_MAKE = "insert into outbox.limits (id) select unnest(%b) id order by id on conflict (id) do nothing"


async def make_cells(database: Database, ids: Sequence[bytes]) -> None:
    """Make the cells that are not there yet.

    Raises psycopg.errors.LockNotAvailable when somebody has made one of them for longer than a moment, uncommitted.
    """
    await database.fetch(_MAKE, Uuids(sorted(ids)), settings=IMPATIENT)


_FIND_HELD = """
with free as materialized (select id from outbox.limits where id = any(%b) for update skip locked)
select id from outbox.limits where id = any(%b) except select id from free
"""


async def find_held_cells(database: Database, ids: Sequence[bytes]) -> frozenset[bytes]:
    """Return which of these cells somebody else has locked now. One that is not there counts as free."""
    asked = Uuids(ids)
    return frozenset(row[0] for row in await database.fetch(_FIND_HELD, asked, asked, settings=IMPATIENT))


# In one order, so that two relays never wait for each other. The statement after it has a newer snapshot, and finds
# nothing locked: neither needs to check a changed row again. Who takes of a cap (in_flight.py) begins with it too.
LOCK = "select from outbox.limits where id = any(%b) order by id for update"

# Lateness is paid for by the burst: what comes late may fall together with what comes in time. A quarter of the
# interval costs nothing, since it brings no second request into any second; 20 ms are allowed in any case.
_TAKE = f"""
-- what each cell is asked for, a row each
with asked as materialized (
    select * from unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b)
        a(id, rate, burst, want, back, accepted, refused, guess, latency)),
-- the cell as it stands now, and what was answered since its rate was last judged
seen as materialized (
    select a.id, a.rate, a.burst, a.want, a.back, a.guess, c.allowed_at, c.slowed_to, c.measured_from, c.calm, c.now,
           a.refused as newly, c.accepted + a.accepted as accepted, c.refused + a.refused as refused,
           a.accepted as took, extract(epoch from c.now - c.measured_from)::float8 as age,
           greatest(1, 2 * a.latency, least(5, 3 / c.slowed_to)) as epoch
    from asked a
    cross join lateral (select *, clock_timestamp() as now from outbox.limits where id = a.id limit 1) c),
-- which step the rate takes after these answers, and what the receiver was seen to take
judged as materialized (
    select *, case when slowed_to is null then case when newly > 0 then 'begin' else 'free' end
                   when age > epoch + 10 then case when age > 600 then 'end' else 'anew' end
                   when age < epoch or accepted + refused = 0 then 'gather'
                   when refused > 0 then 'cut'
                   when accepted < 0.6 * slowed_to * age - 1 then case when calm >= 30 then 'end' else 'rest' end
                   when slowed_to > {FASTEST} then 'end'
                   else 'rise' end as step,
              greatest({SLOWEST}, slowed_to / 10, least(slowed_to * 0.95, greatest(
               accepted / age,
               case when calm < {GUESSED} then slowed_to * accepted / nullif(accepted + refused, 0) end))) as taken
    from seen),
-- the rate that the receiver is slowed to after this step, and the counts from which the next one begins
adapted as materialized (
    select id, rate, burst, want, back, allowed_at, now,
           case when step in ('free', 'end') then null
                when step = 'begin' then greatest(guess, {SLOWEST})
                when step = 'cut' then case when accepted = 0 then greatest({SLOWEST}, slowed_to / 2) else taken end
                when step = 'rise' then slowed_to * (1 + least(1, 0.05 * power(2, greatest(0, calm - 2))))
                else slowed_to end as slowed_to,
           case when step = 'gather' then measured_from else now end as measured_from,
           case when step = 'gather' then accepted when step = 'anew' then took else 0 end as accepted,
           case when step = 'gather' then refused when step = 'anew' then newly else 0 end as refused,
           case when step in ('gather', 'anew') then calm
                when step = 'cut' then case when accepted = 0 then 6 when taken < slowed_to / 2 then 5 else 0 end
                when step = 'begin' then {GUESSED}
                when step in ('rise', 'rest') then least(calm + 1, 1000) else 0 end as calm
    from judged),
-- the lower of the two rates: the seconds between its slots, and whether it is what the receiver takes
effective as materialized (
    select *, coalesce(slowed_to < rate, slowed_to is not null) as slow, 1 / least(rate, slowed_to) as spacing
    from adapted),
-- how late a slot may be used
bounded as materialized (
    select *, greatest(0.02, spacing / 4, least(0.1, (case when slow then 1 else burst end - 1) * spacing)) as late
    from effective),
-- how far ahead of its time a slot may be given: the burst, less what lateness takes of it
tolerant as materialized (
    select *, greatest(0, (case when slow then 1 else burst end - 1) * spacing
                          - case when late > spacing / 4 then late else 0 end) as tolerance
    from bounded),
-- for how many seconds from now slots are given out already, without those that come back
based as materialized (
    select *, greatest(0, least(extract(epoch from allowed_at - now)::float8,
                                {AHEAD_SECONDS} + tolerance + spacing) - back * spacing) as base
    from tolerant),
-- how many slots are given now
granted as materialized (
    select *, coalesce(least(want, greatest(0, floor(({AHEAD_SECONDS} + tolerance - base) / spacing) + 1)), 0)::integer
              as count
    from based),
-- the cell after them
written as (
    insert into outbox.limits (id, allowed_at, slowed_to, measured_from, accepted, refused, calm)
    select id, coalesce(now + make_interval(secs => base + count * spacing), now), slowed_to, measured_from, accepted,
           refused, calm
    from granted
    on conflict (id) do update set
        allowed_at = excluded.allowed_at, slowed_to = excluded.slowed_to, measured_from = excluded.measured_from,
        accepted = excluded.accepted, refused = excluded.refused, calm = excluded.calm)
select id, count, base - tolerance, spacing, late, base + count * spacing - tolerance, slowed_to from granted
"""


async def take_slots(database: Database, asked: Sequence[AskedSlots]) -> list[GrantedSlots]:
    """Take slots of these cells for AHEAD_SECONDS at most, and tell them what came of the former ones.

    A cell that is not there is left out of the answer: make it, and ask again.

    Raises psycopg.errors.LockNotAvailable when somebody holds one of them for longer than a moment: none is asked.
    """
    ids, rates, *counts, guesses, latencies = zip(*asked, strict=True)
    columns = (Uuids(ids), Floats(rates), *map(Integers, counts), Floats(guesses), Floats(latencies))
    _, rows = await database.transaction((LOCK, (Uuids(ids),)), (_TAKE, columns), settings=IMPATIENT)
    return [GrantedSlots(*row) for row in rows]


CLEAR_LIMITS = """
with gone as (
    delete from outbox.limits where id = any(array(
        select id from outbox.limits l where not exists (select from outbox.subscriptions where id = l.id)
          and not exists (select from outbox.tenant_limits where id = l.id)
        order by id limit %(batch)s for update skip locked))
    returning id),
ended as (
    delete from outbox.in_flight where ends_at < clock_timestamp() - interval '1 hour' returning 1)
select count(*) from gone
"""
