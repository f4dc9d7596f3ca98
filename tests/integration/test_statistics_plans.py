"""Counting attempts takes work in proportion to them, whatever the planner believes of the tables.

A quiet night leaves the statistics of an empty table behind; then a burst comes. Rows that a plan handles are bounded,
not time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

STATEMENTS = 20
EACH = 100  # attempts of a statement, as a relay settles them
ATTEMPTS = STATEMENTS * EACH
SUBSCRIPTIONS = 30_000
TIMES = 80  # the rows of all steps of a plan, as a multiple of the attempts

FILL = f"""
insert into outbox.events (type, tenant, payload)
    select 't' || n % 20, 'tenant-' || n % 7, '1' from generate_series(1, {ATTEMPTS}) n;
set session_replication_role = replica;
insert into outbox.subscriptions (url, types, tenant)
    select 'https://example.com/' || n, '{{*}}', 'tenant-' || n % 7 from generate_series(1, {SUBSCRIPTIONS}) n;
reset session_replication_role"""
SETTLE = f"""
insert into outbox.attempts
    (delivery_id, event_seq, subscription_id, number, verdict, outcome, status, milliseconds, at)
select gen_random_uuid(), e.seq, ids[1 + e.seq::integer * 13 %% {SUBSCRIPTIONS}], 1,
       case when e.seq %% 10 = 0 then 'retry' else 'delivered' end, 'http_5xx', 500, e.seq %% 1000,
       clock_timestamp() - make_interval(secs => %(age)s)
from (select seq from outbox.events order by seq offset %(first)s limit {EACH}) e,
     (select array_agg(id order by id) as ids from outbox.subscriptions) s
"""


class Told:
    """The plans of a connection's statements, those inside functions too, as the server's auto_explain tells them."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.plans: list[dict[str, Any]] = []
        connection.execute("load 'auto_explain'")
        for setting in ("min_duration = 0", "analyze = on", "timing = off", "format = json", "nested_statements = on"):
            connection.execute(f"set auto_explain.log_{setting}")
        connection.add_notice_handler(self._note)
        connection.execute("set client_min_messages = log")

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            self.plans.append(json.loads(text.partition("plan:")[2])["Plan"])

    def rows(self) -> int:
        """Count the rows that all steps handled."""
        found, waiting = 0, list(self.plans)
        while waiting:
            node = waiting.pop()
            removed = sum(value for name, value in node.items() if name.startswith("Rows Removed"))
            found += int((node["Actual Rows"] + removed) * node["Actual Loops"])
            waiting.extend(node.get("Plans", []))
        return found


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """After a quiet night: every table was analysed while it was empty, and nothing analyses it again."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in ("uncounted", "rollups", "subscriptions", "events_default", "dead_letters"):
            connection.execute(f"alter table outbox.{table} set (autovacuum_enabled = off)")
            connection.execute(f"vacuum analyze outbox.{table}")
        for statement in FILL.split(";\n"):
            connection.execute(statement)
        yield connection


def burst(database: psycopg.Connection[Any], seconds_ago: int) -> None:
    for number in range(STATEMENTS):
        database.execute(SETTLE, {"first": number * EACH, "age": seconds_ago + number})


def test_a_burst_after_a_quiet_night_is_counted_in_proportion(database: psycopg.Connection[Any]) -> None:
    burst(database, 0)
    database.execute("select outbox.roll_up(100)")
    database.execute("analyze outbox.uncounted")  # it has pages, and no row
    burst(database, 0)
    told = Told(database)
    assert database.execute("select outbox.roll_up(100)").fetchone() == (STATEMENTS,)
    assert told.rows() <= TIMES * ATTEMPTS


def test_an_hour_and_a_day_are_closed_in_proportion_to_what_they_have(database: psycopg.Connection[Any]) -> None:
    """Each of 2,000 sums was compared with each failure, 1.4 million rows; of a large hour it took minutes."""
    burst(database, 3 * 3600)
    database.execute("""update outbox.rollup_state set
        hour_until = date_bin('1 hour', now() - interval '5 hours', '2000-01-01Z'),
        day_until = date_bin('1 day', now() - interval '3 days', '2000-01-01Z')""")
    assert database.execute("select outbox.roll_up(100)").fetchone() == (STATEMENTS,)
    told = Told(database)
    for _ in range(6):
        assert database.execute("select outbox.roll_up(100)").fetchone() == (0,)
    assert told.rows() <= TIMES * ATTEMPTS
    counted = "select sum(delivered + failed) from outbox.rollups where scope = 'all' and seconds = 3600"
    assert database.execute(counted).fetchone() == (ATTEMPTS,)


HOURS = 24
TENANTS = 100
ROLLUPS = f"""
insert into outbox.rollups (seconds, start, scope, subscription_id, tenant, type, delivered, failed, dead, cancelled,
                            milliseconds, buckets, counts)
select 3600, date_bin('1 hour', now(), '2000-01-01Z') - make_interval(hours => h), 'subscription', s.id, s.tenant, '',
       3, 0, 0, 0, 30, '{{40}}', '{{3}}'
from (select id, tenant from outbox.subscriptions order by id limit 10000) s, generate_series(1, {HOURS}) h"""


def test_a_tenants_subscriptions_are_not_looked_for_among_all(database: psycopg.Connection[Any]) -> None:
    """Those of a hundred tenants were read for the portal of one: half a second with 10,000 subscriptions."""
    database.execute("set session_replication_role = replica")
    database.execute(f"update outbox.subscriptions set tenant = 'tenant-' || abs(hashtext(id::text)) % {TENANTS}")
    database.execute("set session_replication_role = origin")
    database.execute("update outbox.rollup_state set hour_until = date_bin('1 hour', now(), '2000-01-01Z')")
    database.execute(ROLLUPS)
    for table in ("subscriptions", "rollups"):
        database.execute(f"analyze outbox.{table}")
    told = Told(database)
    ranked = database.execute(
        "select delivered from outbox.statistics('25 hours', null, 'tenant-7', null, 'subscription')"
    )
    counts = [row[0] for row in ranked]
    assert 50 <= len(counts) <= 200
    assert set(counts) == {3 * HOURS}
    assert told.rows() <= 40 * len(counts) * HOURS
