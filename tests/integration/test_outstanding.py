"""Outstanding deliveries: pages together are the list, whatever is asked and however little one page may look at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from outbox.control import outstanding
from outbox.control.deliveries import ListedDelivery, list_deliveries
from outbox.control.filters import Filters
from outbox.control.outstanding import OUTSTANDING, OutstandingState
from tests.integration.test_history_plans import Watch
from tests.support import databases
from tests.support.property_checks import BESIDE_FIXTURES

pytestmark = pytest.mark.xdist_group("outstanding")  # its databases are filled once

SUBSCRIPTIONS = """
insert into outbox.subscriptions (url, types, tenant, paused_at, disabled_at, removed_at, held_until, disabled_reason)
select 'https://example.com/' || n, '{*}', 'tenant-' || n % 3,
       case when n % 11 = 5 then now() end, case when n % 11 = 6 then now() end,
       case when n % 11 = 7 then now() end, case when n % 11 = 8 then now() + interval '1 day' end,
       case when n % 11 = 6 then 'broken' end
from generate_series(1, 22) n"""
EVENTS = """
insert into outbox.events (tenant, type, key, payload)
select 'tenant-' || n % 3, 'order.t' || n % 5, 'key-' || n % 7, '{}' from generate_series(1, 60) n"""
DELIVERIES = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, lease)
select gen_random_uuid(), seqs[1 + (n * 7) % 60], ids[1 + n * n % 22],
       case when n % 9 = 4 then 'infinity' else now() + make_interval(mins => (n * 37) % 200 - 100) end,
       case when n % 6 = 1 then 1 else 0 end, case when n % 6 = 1 and n % 9 <> 4 then n end
from generate_series(1, 300) n,
     (select array_agg(id order by id) as ids from outbox.subscriptions) s,
     (select array_agg(seq order by seq) as seqs from outbox.events) e"""


@pytest.fixture(scope="module")
def url(server_url: str, migrated_template: str) -> Iterator[str]:
    with databases.database(server_url, template=migrated_template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("set session_replication_role = replica")
            for statement in (SUBSCRIPTIONS, EVENTS, DELIVERIES):
                connection.execute(statement)
        yield url


@pytest.fixture(scope="module")
def watch(url: str) -> Iterator[Watch]:
    watch = Watch(url)
    yield watch
    watch.engine.dispose()


@pytest.fixture(scope="module")
def connection(watch: Watch) -> Iterator[Connection]:
    with watch.engine.connect() as connection:
        yield connection


def expected(connection: Connection, where: str, state: OutstandingState | None) -> list[str]:
    """Return the ids by one plain query."""
    of_state = "true" if state is None else f"found.state = '{state}'"
    rows = connection.execute(
        text(f"select id from ({OUTSTANDING}) found where {where} and {of_state} order by due_at nulls last, id")
    )
    return [row.id.hex for row in rows]


def walked(connection: Connection, tenant: str | None, filters: Filters, state: Any) -> Iterator[ListedDelivery]:
    after = None
    for _ in range(1_000):
        page = list_deliveries(connection, tenant, filters, state, after=after)
        assert len(page) == filters.limit or page.next is None or page.searched_until is not None
        yield from page
        if (after := page.next) is None:
            return
    raise AssertionError("the list does not end")


ASKED: list[tuple[str, str | None, dict[str, Any]]] = [
    ("true", None, {}),
    ("type = 'order.t2'", None, {"type": "order.t2"}),
    ("key = 'key-3'", None, {"key": "key-3"}),
    ("tenant = 'tenant-1'", None, {"tenant": "tenant-1"}),
    ("subscription_id in (select id from outbox.subscriptions where tenant = 'tenant-2')", "tenant-2", {}),
    ("due_at >= now() - interval '30 minutes'", None, {"since": timedelta(minutes=30)}),
    ("due_at < now() - interval '30 minutes'", None, {"until": timedelta(minutes=30)}),
    ("false", None, {"type": "no.such"}),
]


@settings(max_examples=25, suppress_health_check=BESIDE_FIXTURES)
@given(
    asked=st.sampled_from(ASKED),
    state=st.sampled_from([None, *outstanding.SUBSCRIPTIONS_OF]),
    limit=st.sampled_from([3, 20, 1_000]),
    looked=st.sampled_from([7, 60, 5_000]),
    branches=st.sampled_from([1, 3, 50]),
)
def test_pages_together_are_the_list(
    connection: Connection, asked: Any, state: OutstandingState | None, limit: int, looked: int, branches: int
) -> None:
    where, tenant, filters = asked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outstanding, "LOOKED", looked)
        patch.setattr(outstanding, "MOST_BRANCHES", branches)
        connection.rollback()  # one transaction, one now()
        found = [item.id.hex for item in walked(connection, tenant, Filters(**filters, limit=limit), state)]
        # The parked, whose time is infinite, come last, as a null does.
        assert found == expected(connection, where.replace("due_at", "coalesce(due_at, 'infinity')"), state)


def test_a_subscription_and_an_event_are_walked_alone(connection: Connection) -> None:
    one, event = connection.execute(
        text("select subscription_id, (select id from outbox.events where seq = event_seq)"
             " from outbox.deliveries order by id limit 1")
    ).one()  # fmt: skip
    of_both = [item.id for item in walked(connection, None, Filters(subscription=one, event=event), None)]
    of_one = list(walked(connection, None, Filters(subscription=one), None))
    assert of_both == [item.id for item in of_one if item.event_id == event]
    assert of_both
    assert {item.subscription_id for item in of_one} == {one}


MANY = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
select gen_random_uuid(), 1, ids[1 + n % 22], now() - make_interval(secs => n / 100.0)
from generate_series(1, 40000) n, (select array_agg(id order by id) as ids from outbox.subscriptions) s"""


@pytest.fixture(scope="module")
def long_backlog(server_url: str, migrated_template: str) -> Iterator[Watch]:
    with databases.database(server_url, template=migrated_template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("set session_replication_role = replica")
            for statement in (SUBSCRIPTIONS, EVENTS, MANY):
                connection.execute(statement)
        watch = Watch(url)
        yield watch
        watch.engine.dispose()


@pytest.mark.parametrize("given", [{}, {"type": "order.t2"}, {"key": "no such"}, {"until": timedelta(minutes=3)}])
def test_a_page_touches_few_pages_of_a_long_backlog(long_backlog: Watch, given: dict[str, Any]) -> None:
    """A row that is looked at costs an entry of the index, itself, its event and its subscription; not more of them."""
    with long_backlog.engine.connect() as connection:
        long_backlog.plans.clear()
        connection.connection.dbapi_connection.add_notice_handler(long_backlog.note)  # type: ignore[union-attr]
        found = list_deliveries(connection, None, Filters(**given))
        connection.connection.dbapi_connection.remove_notice_handler(long_backlog.note)  # type: ignore[union-attr]
    assert found.next is not None
    assert 0 < long_backlog.pages() <= outstanding.LOOKED * 10
    assert given or long_backlog.pages() <= 5_000
