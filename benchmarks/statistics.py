"""Statistics beside a history of attempts: how long an answer takes, what a roll-up costs, what the trigger costs (D2).

Ten attempts for each row of `--backlog` (ten million at full size), over 30 days, of ten thousand subscriptions, a
hundred tenants and ten types. The history is rolled up by the relay's own functions. Times of queries are the worst
median over scopes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Result, median

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["run"]

BAR_MILLISECONDS = 50
ATTEMPTS_EACH = 10
SUBSCRIPTIONS = 10_000
ASKED = 15
BATCH = 50
BATCHES = 400
WINDOWS = ("1 hour", "24 hours", "7 days", "30 days")

_SUBSCRIPTIONS = """
insert into outbox.subscriptions (url, types, tenant)
select 'https://example.com/' || i, '{*}', 'tenant' || i %% 100 from generate_series(1, %s) i"""
_EVENTS = "insert into outbox.events (type, payload) select 'order.t' || i, '1' from generate_series(0, 9) i"
_ATTEMPTS = """
insert into made (delivery_id, event_seq, subscription_id, number, verdict, outcome, status, milliseconds, at)
select gen_random_uuid(), 1 + i %% 10, s.ids[1 + (i::bigint * 7919) %% %(subscriptions)s], 1,
       case when i %% 20 = 0 then 'retry' else 'delivered' end,
       case when i %% 20 = 0 then 'timeout' else 'delivered' end,
       200, exp(random() * 7)::integer, clock_timestamp() - interval '30 days' * (i::double precision / %(all)s)
from generate_series(%(first)s, %(last)s) i, (select array_agg(id) as ids from outbox.subscriptions) s"""
_BEGIN_EARLIER = """
update outbox.rollup_state set hour_until = date_bin('1 day', clock_timestamp() - interval '31 days', '2000-01-01Z'),
                               day_until = date_bin('1 day', clock_timestamp() - interval '31 days', '2000-01-01Z')"""
_BY_SCOPE = {
    "all": "select * from outbox.statistics(%(over)s)",
    "type": "select * from outbox.statistics(%(over)s, type => 'order.t1')",
    "tenant": "select * from outbox.statistics(%(over)s, tenant => 'tenant1')",
    "subscription": "select * from outbox.statistics(%(over)s, %(subscription)s)",
}
_PIECE = 100_000


def run(bench: Bench) -> Iterator[Result]:
    """Make the history, roll it up, ask."""
    attempts = bench.sizes.backlog * ATTEMPTS_EACH
    with bench.server.outbox() as url, bench.connection(url) as connection:
        connection.execute(_SUBSCRIPTIONS, (SUBSCRIPTIONS,))
        connection.execute(_EVENTS)
        for days in range(31):
            connection.execute("select outbox.make_attempt_leaf(0, current_date - %s)", (days,))
        connection.execute(_BEGIN_EARLIER)
        seconds = _make_and_roll(bench, connection, attempts)
        _close(connection)
        connection.execute("vacuum analyze outbox.rollups")
        connection.execute("vacuum analyze outbox.attempts")
        anchors = f"{attempts:,} attempts, {SUBSCRIPTIONS:,} subscriptions"
        yield Result("roll-up, an attempt", f"{seconds / attempts * 1e6:.1f} µs", anchors=anchors)
        for over in WINDOWS:
            times = {scope: _ask(connection, query, over) for scope, query in _BY_SCOPE.items()}
            worst = max(times.values())
            told = ", ".join(f"{scope} {found:.0f}" for scope, found in times.items())
            yield Result(f"statistics over {over}", f"{worst:.0f} ms", f"≤ {BAR_MILLISECONDS} ms",
                         worst <= BAR_MILLISECONDS, f"{told} ms; {anchors}")  # fmt: skip
        yield _trigger(connection)


def _make_and_roll(bench: Bench, connection: psycopg.Connection[Any], attempts: int) -> float:
    """Insert in pieces and roll each up, as it goes in life; return the seconds of rolling up."""
    seconds = 0.0
    for first in range(0, attempts, _PIECE):
        last = min(first + _PIECE, attempts) - 1
        given = {"subscriptions": SUBSCRIPTIONS, "all": attempts, "first": first, "last": last}
        connection.execute("create temp table if not exists made (like outbox.attempts)")
        connection.execute(_ATTEMPTS, given)
        for start in range(0, _PIECE, 5_000):
            connection.execute("insert into outbox.attempts select * from made offset %s limit 5000", (start,))
        connection.execute("truncate made")
        began = time.monotonic()
        while _first(connection, "select outbox.roll_up()"):
            pass
        seconds += time.monotonic() - began
        if first % (10 * _PIECE) == 0:
            bench.say(f"statistics: {last + 1:,} attempts")
    return seconds


def _close(connection: psycopg.Connection[Any]) -> None:
    """Close the hours and days that are over."""
    for _ in range(32 * 24):
        connection.execute("select outbox.roll_up()")
    while _first(connection, "select outbox.prune_rollups(400, 100000)"):
        pass


def _ask(connection: psycopg.Connection[Any], query: str, over: str) -> float:
    one = _first(connection, "select outbox.text_id('sub', id) from outbox.subscriptions limit 1")
    given = {"over": over, "subscription": one}
    times = []
    for _ in range(ASKED):
        began = time.perf_counter()
        connection.execute(query, given)  # type: ignore[arg-type]
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


def _trigger(connection: psycopg.Connection[Any]) -> Result:
    """Time the insert of a batch with the trigger and without it, in turn."""
    statement = """
        insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)
        select gen_random_uuid(), 1, id, 1, 'delivered', 'delivered', 5 from outbox.subscriptions limit %s"""
    times: dict[str, list[float]] = {"enable": [], "disable": []}
    for number in range(BATCHES):
        word = "enable" if number % 2 else "disable"
        connection.execute(f"alter table outbox.attempts {word} trigger note_uncounted")  # type: ignore[arg-type]
        began = time.perf_counter()
        connection.execute(statement, (BATCH,))
        times[word].append(time.perf_counter() - began)
    connection.execute("alter table outbox.attempts enable trigger note_uncounted")
    more = (median(times["enable"]) - median(times["disable"])) / BATCH * 1e6
    anchors = f"batches of {BATCH}: {median(times['disable']) / BATCH * 1e6:.1f} µs an attempt without"
    return Result("noting what is to be counted, an attempt", f"{more:.1f} µs", anchors=anchors)


def _first(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement).fetchone()  # type: ignore[arg-type]
    return row[0] if row else None
