"""Row level security that somebody switched on: nobody takes hidden rows for none, and each says what mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

import outbox
from outbox.errors import SchemaError
from outbox.schema import runner as schema
from relay.config.options import Config
from relay.operations.connection import Database
from relay.operations.denied_rights import RightsError
from relay.operations.reconciliation import reconcile
from relay.operations.schema_findings import find_in_schema
from relay.operations.status.status import status
from relay.process.housekeeping import Housekeeping
from relay.store.store import Store
from tests.support import databases

MEND = "alter table outbox.{table} disable row level security"
SHOWS_ALL = [
    "for all to outbox_relay using (true)",
    "for all using (true) with check (true)",
    "to public using (true)",
]
HIDES = [
    None,
    "for all using (type <> 'b')",
    "to outbox_app using (true)",
    "for delete to outbox_relay using (true)",
    "for all using (false)",
    "for all using (true) with check (false)",
]


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def switch_on(owner: psycopg.Connection[Any], table: str, policy: str | None = None) -> None:
    owner.execute(f"alter table outbox.{table} enable row level security")
    if policy is not None:
        owner.execute(f"create policy theirs on outbox.{table} {policy}")


def switch_off(owner: psycopg.Connection[Any], table: str) -> None:
    owner.execute(f"alter table outbox.{table} disable row level security")


@pytest.mark.parametrize("policy", HIDES)
def test_a_policy_that_hides_a_part_is_refused_as_one_that_hides_all(
    owner: psycopg.Connection[Any], login: Callable[..., str], policy: str | None
) -> None:
    url = login("outbox_relay")
    switch_on(owner, "events", policy)
    with asyncio.Runner() as runner:
        store = Store(url)
        for _ in range(2):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match='"events"') as caught:
                runner.run(count_events(store))
        runner.run(store.close())
    assert "row-level security" in str(caught.value)
    database = Database(Config(database_url=url))
    with pytest.raises(RightsError, match=MEND.format(table="events")), database.transaction() as connection:
        connection.execute(sa.text("select count(*) from outbox.events"))


@pytest.mark.parametrize("policy", SHOWS_ALL)
def test_a_policy_that_shows_each_row_is_enough_until_it_is_dropped(
    owner: psycopg.Connection[Any], login: Callable[..., str], policy: str
) -> None:
    url = login("outbox_relay")
    switch_on(owner, "events", policy)
    owner.execute("insert into outbox.events (type, payload) values ('a', '1'), ('b', '2')")
    with asyncio.Runner() as runner:
        store = Store(url)
        assert runner.run(count_events(store)) == 2
        assert runner.run(store.poll(-1, 0.0)).first is not None
        with Database(Config(database_url=url)).transaction() as connection:
            assert connection.scalar(sa.text("select count(*) from outbox.events")) == 2
        owner.execute("drop policy theirs on outbox.events")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            runner.run(store.fetch("select count(*) from outbox.events"))
        switch_on(owner, "pending", "using (true)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            runner.run(store.poll(-1, 0.0))
        runner.run(store.close())


async def count_events(store: Store) -> int:
    try:
        await store.poll(-1, 0.0)
        ((count,),) = await store.fetch("select count(*) from outbox.events")
    except psycopg.Error as error:
        await store.recover(error)
        raise
    return int(count)


def test_a_second_table_that_hides_is_named_and_not_the_first_one_that_shows_all(
    owner: psycopg.Connection[Any], login: Callable[..., str]
) -> None:
    switch_on(owner, "events", "using (true)")
    switch_on(owner, "pending")
    with asyncio.Runner() as runner, pytest.raises(psycopg.errors.InsufficientPrivilege, match='table "pending"'):
        runner.run(count_events(Store(login("outbox_relay"))))


def test_a_restrictive_policy_beside_one_that_shows_all_hides(
    owner: psycopg.Connection[Any], login: Callable[..., str]
) -> None:
    switch_on(owner, "events", "using (true)")
    owner.execute("create policy narrower on outbox.events as restrictive using (type <> 'b')")
    with asyncio.Runner() as runner, pytest.raises(psycopg.errors.InsufficientPrivilege, match='table "events"'):
        runner.run(count_events(Store(login("outbox_relay"))))


@pytest.mark.parametrize("policy", [None, "using (kind = 'signing')"])
def test_housekeeping_deletes_nothing_by_halves_and_says_why(
    owner: psycopg.Connection[Any],
    login: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    policy: str | None,
) -> None:
    """All or a part of the secrets would be hidden, and the round would have had its success."""
    url = login("outbox_relay")
    switch_on(owner, "secrets", policy)
    keep_house(url)
    (told,) = [message for message in caplog.messages if message.startswith("secrets that ran out: ")]
    assert MEND.format(table="secrets") in told
    error = owner.execute(
        "select error from outbox.rounds where name = 'secrets that ran out' and succeeded_at is null"
    ).fetchone()
    assert error is not None
    assert '"secrets"' in error[0]
    (succeeded,) = owner.execute("select count(*) from outbox.rounds where succeeded_at is not null").fetchone() or ()
    assert succeeded > 15, "it stops no other round"
    switch_off(owner, "secrets")
    keep_house(url)
    assert owner.execute("select name from outbox.rounds where succeeded_at is null").fetchall() == []


def keep_house(url: str) -> None:
    async def do() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
            await Housekeeping(Config(database_url=url)).do_due(connection)

    with asyncio.Runner() as runner:
        runner.run(do())


@pytest.mark.parametrize("table", ["events", "deliveries", "schema_migrations", "subscriptions"])
@pytest.mark.parametrize("group", ["outbox_operator", "outbox_reader", "outbox_relay"])
def test_an_operator_is_told_instead_of_that_all_is_well(
    owner: psycopg.Connection[Any], login: Callable[..., str], group: str, table: str
) -> None:
    switch_on(owner, table)
    database = Database(Config(database_url=login(group)))
    with (
        pytest.raises((RightsError, SchemaError), match=MEND.format(table=table)),
        database.transaction() as connection,
    ):
        status(connection, None)


@pytest.mark.parametrize("table", ["events", "deliveries"])
def test_a_reconciliation_finds_no_loss_where_there_is_none(
    owner: psycopg.Connection[Any], login: Callable[..., str], table: str
) -> None:
    switch_on(owner, table, "for select using (false)")
    database = Database(Config(database_url=login("outbox_operator")))
    with pytest.raises(RightsError, match=MEND.format(table=table)), database.transaction() as connection:
        reconcile(connection, None, timedelta(days=1))


def test_a_status_read_by_who_sees_all_names_the_table(owner: psycopg.Connection[Any], engine: sa.Engine) -> None:
    """A superuser's status would be well, while relays and applications are refused."""
    switch_on(owner, "pending")
    switch_on(owner, "events", "using (type <> 'b')")
    switch_on(owner, "secrets", "using (true)")
    with engine.connect() as connection:
        found = [one for one in find_in_schema(connection, None) if one.code == "rows.hidden"]
    assert [(one.subject, one.severity) for one in found] == [
        ("outbox.events", "problem"),
        ("outbox.pending", "problem"),
    ]
    assert MEND.format(table="events") in found[0].mend


def recorded(url: str, kind: str) -> None:
    if kind == "psycopg":
        with psycopg.connect(url) as raw:
            outbox.record(raw, "a.b", {})
    elif kind == "async":
        with asyncio.Runner() as runner:
            runner.run(record_async(url))
    else:
        with databases.engine_on(url) as engine, engine.begin() as connection:
            outbox.record(connection, "a.b", {}, **({"idempotency_key": "k"} if kind == "key" else {}))


async def record_async(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url) as raw:
        await outbox.arecord(raw, "a.b", {})


@pytest.mark.parametrize("kind", ["psycopg", "async", "sqlalchemy"])
def test_an_application_is_told_what_mends_it(
    owner: psycopg.Connection[Any], login: Callable[..., str], kind: str
) -> None:
    url = login("outbox_app")
    switch_on(owner, "events")
    with pytest.raises(SchemaError, match=MEND.format(table="events")):
        recorded(url, kind)
    switch_off(owner, "events")
    recorded(url, kind)


@pytest.mark.parametrize("table", ["events", "pending", "idempotency_keys"])
def test_what_a_keyed_record_writes_with_the_owners_rights_is_not_lost(
    owner: psycopg.Connection[Any], login: Callable[..., str], table: str
) -> None:
    url = login("outbox_app")
    switch_on(owner, table)
    recorded(url, "key")
    recorded(url, "key")
    assert owner.execute("select count(*) from outbox.events").fetchone() == (1,)
    assert owner.execute("select count(*) from outbox.pending").fetchone() == (1,)


def test_an_owner_from_whom_rows_are_hidden_migrates_nothing(
    empty_database_url: str, login: Callable[..., str], owner: psycopg.Connection[Any]
) -> None:
    """Steps that change rows would leave out those that are hidden."""
    before = schema.migrations()[-1].version - 5
    with psycopg.connect(empty_database_url, autocommit=True) as superuser:
        url = owner_of(superuser, login())
        databases.migrate_to(url, before)
        superuser.execute("alter table outbox.schema_migrations enable row level security")
        superuser.execute("alter table outbox.schema_migrations force row level security")
        with pytest.raises(SchemaError, match=MEND.format(table="schema_migrations")):
            databases.migrate(url)
        superuser.execute("alter table outbox.schema_migrations disable row level security")
        assert databases.migrate(url)
        superuser.execute(f"reassign owned by {make_url(url).username} to current_user")


def owner_of(superuser: psycopg.Connection[Any], url: str) -> str:
    """Give the database to this login; return the URL by which it comes to it."""
    name = superuser.info.dbname
    superuser.execute(f"alter database {name} owner to {make_url(url).username}")
    return databases.named(url, name)
