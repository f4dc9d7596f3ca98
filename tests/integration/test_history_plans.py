"""Plans of the history: each filter, and pairs of them, touch a bounded number of pages, whatever the statistics say.

The tables were analysed while they were empty. A page touches no more than the rows that it may look at ask for, so a
table ten times as long would take as long.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Connection, text

from outbox.control import dead_letters, deliveries, events, history
from outbox.control.filters import Filters
from tests.support import databases

pytestmark = pytest.mark.xdist_group("history plans")  # its database is filled once
ATTEMPTS = 120_000
DAYS = 6
FILL = f"""
insert into outbox.subscriptions (url, types, tenant)
    select 'https://example.com/' || n, array['t' || n], 'tenant-' || n % 10 from generate_series(1, 50) n;
set session_replication_role = replica;
insert into outbox.audit (action, subject, details)
    select 'added', 'sub_' || n, case when n % 2 = 0 then '{{"count": 1}}'::jsonb end from generate_series(1, 10000) n;
insert into outbox.events (tenant, type, key, payload, recorded_at)
    select 'tenant-' || n % 10, case n % 30000 when 7 then 'rare' else 'order.t' || n % 20 end, 'key-' || n / 10,
           '{{}}', now() - interval '{DAYS} days' * (1 - n::float8 / {ATTEMPTS}) from generate_series(1, {ATTEMPTS}) n;
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, at, verdict, outcome, status,
                             milliseconds, error)
    select gen_random_uuid(), seq, ids[case when n % 3 = 0 then 1 else 1 + n % 50 end], 1,
           now() - interval '{DAYS} days' * (1 - n::float8 / {ATTEMPTS}),
           case when n % 20 = 0 then 'retry' else 'delivered' end,
           case when n % 20 > 0 then 'delivered' when n % 40000 = 0 then 'tls' else 'http_5xx' end,
           case when n % 20 = 0 then 503 else 200 end, 1, case when n % 20 = 0 then 'answered 503' end
    from (select seq, row_number() over (order by seq) n from outbox.events) e,
         (select array_agg(id order by id) ids from outbox.subscriptions) s;
insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, payload, recorded_at,
                                 attempts, reason, died_at)
    select delivery_id, event_seq, gen_random_uuid(), subscription_id, 'tenant-1', 'order.t1', '{{}}', at, 1, 'timeout',
           at from outbox.attempts limit 30000;
reset session_replication_role
"""


TABLES = """
select oid::regclass::text from pg_class
where relnamespace = 'outbox'::regnamespace and relkind = 'r' and relname ~ '^(attempts|events|dead_letters)'"""


@pytest.fixture(scope="module")
def url(server_url: str, migrated_template: str) -> Iterator[str]:
    """Filled after it was analysed; autovacuum would hide what is tested, so it is off."""
    with databases.database(server_url, template=migrated_template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            while connection.execute(
                f"select outbox.make_attempt_leaf(today => current_date - {DAYS}, ahead_days => {DAYS})"
            ).fetchone() != (None,):
                pass
            for (table,) in connection.execute(TABLES).fetchall():
                connection.execute(f"alter table {table} set (autovacuum_enabled = off)")
                connection.execute(f"analyze {table}")
            for statement in FILL.split(";\n"):
                connection.execute(statement)
        yield url


class Watch:
    """A connection whose statements are told with the pages that each touched."""

    def __init__(self, url: str) -> None:
        told = ("log_min_duration=0", "log_analyze=on", "log_buffers=on", "log_timing=off", "log_format=json")
        options = " ".join(f"-c auto_explain.{setting}" for setting in told)
        options = f"-c session_preload_libraries=auto_explain {options} -c client_min_messages=log"
        self.engine = sqlalchemy.create_engine(
            sqlalchemy.make_url(url).set(drivername="postgresql+psycopg"), connect_args={"options": options}
        )
        self.plans: list[dict[str, Any]] = []

    def note(self, notice: psycopg.errors.Diagnostic) -> None:
        message = notice.message_primary or ""
        if "plan:" in message:
            self.plans.append(json.loads(message.partition("plan:")[2])["Plan"])

    def pages(self) -> int:
        return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in self.plans)


@pytest.fixture(scope="module")
def watch(url: str) -> Iterator[Watch]:
    watch = Watch(url)
    yield watch
    watch.engine.dispose()


@pytest.fixture
def asking(watch: Watch) -> Iterator[Connection]:
    with watch.engine.connect() as connection:
        connection.connection.dbapi_connection.add_notice_handler(watch.note)  # type: ignore[union-attr]
        watch.plans.clear()
        yield connection
        connection.connection.dbapi_connection.remove_notice_handler(watch.note)  # type: ignore[union-attr]


ONE = "(select min(id::text) from outbox.subscriptions)"
SINGLES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "since": {"since": timedelta(days=DAYS)},
    "until": {"until": timedelta(days=DAYS / 2)},
    "subscription": {"subscription": ONE},
    "type": {"type": "order.t7"},
    "rare type": {"type": "rare"},
    "key": {"key": "key-77"},
    "tenant": {"tenant": "tenant-3"},
    "event": {"event": "(select id::text from outbox.events order by seq limit 1)"},
    "failed": {"outcome": "failed"},
    "outcome": {"outcome": "tls"},
    "status": {"status": 404},
    "text": {"text": "no such text"},
}
PAIRS = {
    f"{one}, {other}": SINGLES[one] | SINGLES[other]
    for one, other in itertools.combinations(SINGLES, 2)
    if not set(SINGLES[one]) & set(SINGLES[other]) and "nothing" not in (one, other)
}


def filters_of(connection: Connection, given: dict[str, Any]) -> Filters:
    """Return the filters, with the ids that stand there as a query."""
    asked = {
        name: connection.execute(text(f"select {value}")).scalar_one() if str(value).startswith("(select") else value
        for name, value in given.items()
    }
    return Filters(**asked)


def turn(watch: Watch, connection: Connection, listed: Any, given: dict[str, Any]) -> list[int]:
    """Return how many pages of tables the first two pages of the list touched, each."""
    filters, after, touched = filters_of(connection, given), None, []
    for _ in range(2):
        watch.plans.clear()
        page = listed(connection, filters, after)
        touched.append(watch.pages())
        after = page.next
        if after is None:
            break
    return touched


@pytest.mark.parametrize("name", [*SINGLES, *PAIRS])
def test_a_page_of_attempts_touches_few_pages(watch: Watch, asking: Connection, name: str) -> None:
    """At most: a row of the walk, its event and what is read of both, and once more for a look at the last days."""
    touched = turn(watch, asking, lambda c, filters, after: history.list_attempts(c, None, filters, after=after),
                   (SINGLES | PAIRS)[name])  # fmt: skip
    given = (SINGLES | PAIRS)[name]
    narrowed = set(given) - {"since", "until", "subscription"} not in (set(), {"outcome"})
    looked = history.LOOKED if narrowed or given.get("outcome") == "tls" else 51
    assert max(touched) <= looked * 7 + 1500


@pytest.mark.parametrize(
    "name", ["nothing", "since", "until", "subscription", "failed", "event", "subscription, failed"]
)
def test_what_an_index_knows_takes_a_few_hundred_pages(watch: Watch, asking: Connection, name: str) -> None:
    given = (SINGLES | PAIRS)[name]
    touched = turn(watch, asking, lambda c, filters, after: history.list_attempts(c, None, filters, after=after), given)
    assert max(touched) <= 900


def test_a_tenants_page_takes_some_hundred_pages(watch: Watch, asking: Connection) -> None:
    touched = turn(watch, asking, lambda c, f, after: history.list_attempts(c, "tenant-3", f, after=after), {})
    assert max(touched) <= 1500


PAGES = ["nothing", "until", "since", "subscription", "type", "rare type", "key", "tenant", "failed", "outcome, tenant"]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("tenant", [None, "tenant-3"])
def test_a_page_that_looks_at_few_days_first_is_the_same(
    asking: Connection, monkeypatch: pytest.MonkeyPatch, name: str, tenant: str | None
) -> None:
    filters, after = filters_of(asking, (SINGLES | PAIRS).get(name) or {"outcome": "tls", "tenant": "tenant-3"}), None
    for _ in range(4):
        pages = []
        for days in ((), (1 / 48, 1), (2,)):
            monkeypatch.setattr(history, "RECENT_DAYS", days)
            pages.append(history.list_attempts(asking, tenant, filters, after=after))
        assert pages[0] == pages[1] == pages[2]
        after = pages[0].next
        if after is None:
            break


def test_a_page_of_attempts_opens_the_leaves_of_the_last_days(watch: Watch, asking: Connection) -> None:
    def day() -> str:
        return f"{datetime.now(UTC) - timedelta(history.RECENT_DAYS[0]):%Y%m%d}"

    began = day()
    history.list_attempts(asking, "tenant-3", Filters())
    leaves = re.findall(r"attempts_(\d{8})", json.dumps(watch.plans))
    assert began <= min(leaves) <= day()


@pytest.mark.parametrize("name", ["nothing", "subscription", "since", "until", "key", "rare type"])
def test_a_page_of_what_was_delivered_touches_few_pages(watch: Watch, asking: Connection, name: str) -> None:
    touched = turn(watch, asking, lambda c, filters, after: deliveries.list_deliveries(
        c, None, filters, "delivered", after=after), SINGLES[name])  # fmt: skip
    assert max(touched) <= history.LOOKED * 5 + 1500


@pytest.mark.parametrize("name", ["nothing", "since", "until", "type", "rare type", "key", "tenant", "event", "text"])
def test_a_page_of_events_touches_few_pages(watch: Watch, asking: Connection, name: str) -> None:
    touched = turn(watch, asking, lambda c, filters, after: events.list_events(c, None, filters, after=after),
                   SINGLES[name])  # fmt: skip
    assert max(touched) <= 4000


@pytest.mark.parametrize("name", ["nothing", "since", "until", "type", "rare type", "key", "tenant", "event", "text"])
@pytest.mark.parametrize("state", events.STATES)
def test_a_page_of_events_of_one_state_touches_few_pages(
    watch: Watch, asking: Connection, name: str, state: events.EventState
) -> None:
    touched = turn(watch, asking, lambda c, filters, after: events.list_events(c, None, filters, state, after=after),
                   SINGLES[name])  # fmt: skip
    assert max(touched) <= 12_000


@pytest.mark.parametrize("name", ["nothing", "since", "until", "subscription", "type", "key", "event", "text"])
def test_a_page_of_dead_letters_touches_few_pages(watch: Watch, asking: Connection, name: str) -> None:
    touched = turn(watch, asking, lambda c, filters, after: dead_letters.list_dead_letters(
        c, None, filters, after=after), SINGLES[name])  # fmt: skip
    assert max(touched) <= dead_letters.LOOKED * 2 + 500
