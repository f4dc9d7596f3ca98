"""How long the slowest page of each list of the history takes, over ten million attempts of a month.

The slowest page of the dashboard over the same history is measured too.

Ten thousand subscriptions of a hundred tenants, and one that gets a tenth of everything. One attempt in twenty fails, a
few of them in a rare way. For each filter and for pairs of them, pages are turned from the newest on, and in the middle
of the history; the slowest one counts. What is found is found in a database that was vacuumed, in memory as far as it
fits there.
"""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy

from benchmarks import pages
from benchmarks.bench import Bench, BenchmarkError, Result
from benchmarks.server import engine
from outbox.control import dead_letters, deliveries, events, history
from outbox.control.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from outbox.control.pages import Page

    List = Callable[..., Page[Any]]

__all__ = ["fill", "run"]

BAR_MS = 100
ATTEMPTS_EACH = 10  # of the backlog's size: ten million
PAGES = 5
ROUNDS = 3  # of each page, the fastest counts: what else the machine does is no part of it
DAYS = 30
BATCH = 500_000

_SUBSCRIPTIONS = """
insert into outbox.subscriptions (url, types, tenant)
select 'https://example.com/' || n, array['t' || n], 'tenant-' || n % 100 from generate_series(1, 10000) n
"""
_LEAVES = "select outbox.make_attempt_leaf(today => current_date - {days}, ahead_days => {days})"
_EVENTS = """
insert into outbox.events (tenant, type, key, payload, recorded_at)
select 'tenant-' || n %% 100, case when n %% 50000 = 7 then 'order.rare' else 'order.t' || n %% 20 end,
       'key-' || n / 10, json_build_object('id', n, 'note', repeat('x', 200))::text,
       now() - interval '{days} days' * (1 - n::float8 / %(of)s)
from generate_series(%(first)s, %(last)s) n
"""
_RESOLUTIONS = """
insert into outbox.resolutions (at, first_seq, seqs, matches)
select max(recorded_at), min(seq), array_agg(seq order by seq), array_agg(1 order by seq)
from outbox.events where seq between %(first)s and %(last)s group by seq / 500
"""
_ATTEMPTS = """
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, at, verdict, outcome, status,
                             milliseconds, error, excerpt, headers)
select gen_random_uuid(), n, ids[case when n %% 10 = 3 then 1 else 1 + (n::bigint * 7919) %% 10000 end], 1,
       now() - interval '{days} days' * (1 - n::float8 / %(of)s),
       case when not failed then 'delivered' when n %% 5 = 0 then 'dead' else 'retry' end,
       case when not failed then 'delivered' when n %% 100000 = 60 then 'tls' when n %% 3 = 0 then 'timeout'
            else 'http_5xx' end,
       case when not failed then 200 when n %% 3 > 0 then 500 + n %% 4 end, 12,
       case when failed then 'attempt ' || n || ' failed' end,
       case when failed then convert_to('the receiver failed: ' || repeat('x', 200), 'UTF8') end,
       case when failed then 'HTTP/1.1 500 Internal Server Error' end
from (select n, n %% 20 = 0 as failed from generate_series(%(first)s, %(last)s) n) numbered,
     (select array_agg(id order by id) as ids from outbox.subscriptions) s
"""
_DEAD = """
insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, key, payload,
                                 recorded_at, attempts, died_at, reason, error)
select a.delivery_id, e.seq, e.id, a.subscription_id, e.tenant, e.type, e.key, e.payload, e.recorded_at, 1, a.at,
       a.outcome, a.error
from outbox.attempts a join outbox.events e on e.seq = a.event_seq
where a.verdict = 'dead' and a.event_seq between %(first)s and %(last)s
"""


def fill(connection: psycopg.Connection[Any], attempts: int) -> None:
    """Make so many attempts, an event each, over a month; in the form that a relay leaves behind."""
    connection.execute(_SUBSCRIPTIONS)
    while connection.execute(_LEAVES.format(days=DAYS)).fetchone() != (None,):
        pass
    connection.execute("set session_replication_role = replica")  # nothing of it becomes pending
    for first in range(1, attempts + 1, BATCH):
        span = {"first": first, "last": min(first + BATCH - 1, attempts), "of": attempts}
        connection.execute(_EVENTS.format(days=DAYS), span)
        connection.execute(_RESOLUTIONS, span)
        connection.execute(_ATTEMPTS.format(days=DAYS), span)
        connection.execute(_DEAD, span)
        while connection.execute("select outbox.make_event_leaf()").fetchone() != (None,):
            pass
    connection.execute("reset session_replication_role")
    for table in ("attempts", "events", "resolutions", "subscriptions", "dead_letters"):
        connection.execute(f"vacuum analyze outbox.{table}")
    connection.execute("checkpoint")


def run(bench: Bench) -> Iterator[Result]:
    """Measure each filter, and pairs of them."""
    attempts = bench.sizes.backlog * ATTEMPTS_EACH
    with bench.server.outbox() as url:
        with bench.connection(url) as connection:
            bench.say(f"history: making {attempts:,} attempts")
            fill(connection, attempts)
        made = engine(url)
        try:
            with made.connect() as asking:
                found = dict(_measure(bench, asking))
        finally:
            made.dispose()
        yield _slowest(found, attempts)
        yield pages.measure(bench, url, f"{attempts:,} attempts")


def _slowest(found: dict[str, float], attempts: int) -> Result:
    slowest = max(found, key=lambda name: found[name])
    anchors = f"{slowest}; {attempts:,} attempts, {len(found)} lists, pages of 50"
    return Result("slowest page of the history", f"{found[slowest]:.0f} ms", f"≤ {BAR_MS} ms",
                  found[slowest] <= BAR_MS, anchors)  # fmt: skip


def _measure(bench: Bench, connection: sqlalchemy.Connection) -> Iterator[tuple[str, float]]:
    first, other = connection.execute(
        sqlalchemy.text("select array[min(id::text), max(id::text)] from outbox.subscriptions")
    ).scalar_one()
    (event,) = connection.execute(sqlalchemy.text("select id from outbox.events order by seq desc limit 1")).one()
    for name, tenant, listed, given in _asked(first, other, event):
        for since in ({}, {"until": timedelta(days=DAYS / 2)}):
            if since and "event" in given:
                continue
            milliseconds = max(_pages(connection, listed, tenant, Filters(**given | since)))
            label = f"{name}{' in the middle' if since else ''}"
            bench.say(f"history: {label}: {milliseconds:.1f} ms")
            yield label, milliseconds


def _asked(first: str, other: str, event: object) -> Iterator[tuple[str, str | None, List, dict[str, Any]]]:
    """Yield what is asked: a name, the tenant who asks, the list, and its filters."""
    singles: dict[str, dict[str, Any]] = {
        "nothing": {},
        "a busy subscription": {"subscription": first},
        "a subscription": {"subscription": other},
        "type": {"type": "order.t7"},
        "a rare type": {"type": "order.rare"},
        "key": {"key": "key-77"},
        "tenant": {"tenant": "tenant-7"},
    }
    of_attempts: dict[str, dict[str, Any]] = {
        **singles,
        "event": {"event": event},
        "failed": {"outcome": "failed"},
        "a rare outcome": {"outcome": "tls"},
        "status": {"status": 503},
        "a class of status": {"status": "5xx"},
        "text": {"text": "attempt 777 failed"},
        "text in payloads": {"text": '"id" : 77'},
        "a subscription and failed": {"subscription": other, "outcome": "failed"},
        "a busy subscription and a rare outcome": {"subscription": first, "outcome": "tls"},
        "a subscription and text": {"subscription": other, "text": "no such text"},
        "failed and text": {"outcome": "failed", "text": "no such text"},
        "type and failed": {"type": "order.t7", "outcome": "failed"},
        "tenant and key": {"tenant": "tenant-7", "key": "key-77"},
    }
    for name, given in of_attempts.items():
        yield f"attempts by {name}", None, history.list_attempts, given
    yield "attempts of a tenant", "tenant-7", history.list_attempts, {}
    yield "attempts of a tenant by key", "tenant-7", history.list_attempts, {"key": "key-77"}
    for name, given in singles.items():
        yield f"delivered by {name}", None, _delivered, given
    for name, given in singles.items():
        if "subscription" not in given:
            yield f"events by {name}", None, events.list_events, given
            for state in events.STATES:
                yield f"{state} events by {name}", None, partial(_events_of, state), given
        yield f"dead letters by {name}", None, dead_letters.list_dead_letters, given


def _events_of(
    state: events.EventState, connection: sqlalchemy.Connection, tenant: str | None, filters: Filters, *,
    after: str | None,
) -> Any:  # fmt: skip
    return events.list_events(connection, tenant, filters, state, after=after)


def _delivered(connection: sqlalchemy.Connection, tenant: str | None, filters: Filters, *, after: str | None) -> Any:
    return deliveries.list_deliveries(connection, tenant, filters, "delivered", after=after)


def _pages(connection: sqlalchemy.Connection, listed: List, tenant: str | None, filters: Filters) -> Iterator[float]:
    """Yield the milliseconds of the first pages."""
    after: str | None = None
    for _ in range(PAGES):
        taken = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            page = listed(connection, tenant, filters, after=after)
            taken.append((time.perf_counter() - began) * 1000)
            connection.rollback()
        yield min(taken)
        if page.next == after and after is not None:
            raise BenchmarkError("a page leads to itself")
        after = page.next
        if after is None:
            return
