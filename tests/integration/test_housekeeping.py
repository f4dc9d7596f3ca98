"""Housekeeping: no round stops another one, each tells when it last succeeded, and relays share the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import outbox
from outbox.secret import Secret
from relay.config.options import Config
from relay.process import housekeeping
from relay.process.housekeeping import Housekeeping
from relay.secrets.keyring import new_private_key
from tests.support.seeding import sign_in

pytestmark = [pytest.mark.field("F68"), pytest.mark.anyio]

REMOVED = "deliveries of removed subscriptions"
SLOW = """create or replace function outbox.make_attempt_leaf(ahead_days integer default 7, today date default null)
          returns text language sql as 'select pg_sleep(30)::text'"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        yield connection


async def keep_house(url: str, *keys: Secret) -> None:
    """Do every round once, as a relay does at its start; it takes far less than the limit unless something waits."""
    async with connected(url) as connection, asyncio.timeout(25):
        await Housekeeping(Config(database_url=url, secret_key=keys)).do_due(connection)


def rounds(database: psycopg.Connection[Any]) -> dict[str, str | None]:
    """What each round is known to have come to: its error, or None after a success."""
    rows = database.execute("select name, case when succeeded_at is null then error end from outbox.rounds").fetchall()
    return dict(rows)


def remove_one(engine: sa.Engine) -> str:
    """Make a subscription that was removed two hours ago; return its id."""
    with engine.begin() as connection:
        made = outbox.subscriptions.add(connection, "https://example.com/hook", ["order.*"])
        outbox.subscriptions.remove(connection, made.id)
        connection.execute(sa.text("update outbox.subscriptions set removed_at = removed_at - interval '2 hours'"))
    return made.id


def seal_to_a_new_key(database: psycopg.Connection[Any]) -> Secret:
    private, public = new_private_key()
    database.execute("insert into outbox.sealing_keys (id, key) values (%s, %s)", (public.id, public.text))
    return private


def old_rows(database: psycopg.Connection[Any]) -> None:
    """Something to delete for each step of retention, single rows."""
    database.execute(
        "insert into outbox.events (type, payload, recorded_at)"
        " values ('a', '1', clock_timestamp() - interval '99 days')"
    )
    database.execute("delete from outbox.pending")
    database.execute(
        "insert into outbox.attempts"
        " (delivery_id, event_seq, subscription_id, number, at, verdict, outcome, milliseconds)"
        " select gen_random_uuid(), 1, gen_random_uuid(), 1, clock_timestamp() - interval '99 days', 'test', 'x', 1"
    )
    database.execute(
        "insert into outbox.resolutions (at, first_seq, seqs, matches)"
        " values (clock_timestamp() - interval '99 days', 1, '{1}', '{1}')"
    )


def counts(database: psycopg.Connection[Any]) -> list[int]:
    tables = ("events", "attempts", "resolutions", "subscriptions")
    return [database.execute(f"select count(*) from outbox.{table}").fetchone()[0] for table in tables]


async def test_every_round_tells_its_last_success(database, database_url) -> None:
    await keep_house(database_url, seal_to_a_new_key(database))
    came_to = rounds(database)
    assert len(came_to) == 29
    assert set(came_to.values()) == {None}


@pytest.mark.parametrize(
    ("harm", "names"),
    [
        ("drop function outbox.make_attempt_leaf", {"attempt leaves"}),
        ("drop function outbox.make_event_leaf", {"event leaves"}),
        ("drop function outbox.retire_next_event_leaf", {"leaves of old events"}),
        ("drop function outbox.prune_events", {"old events"}),
        ("drop function outbox.drop_empty_leaf", {"empty leaves"}),
        ("alter table outbox.secrets rename expires_at to ends_at", {"secrets that ran out"}),
        (SLOW, {"attempt leaves"}),
    ],
)
async def test_a_round_that_fails_stops_no_other_and_says_why(
    engine, database, database_url, caplog, harm, names
) -> None:
    key = seal_to_a_new_key(database)
    database.execute(
        "insert into outbox.subscriptions (url, types) values ('https://example.com/', '{a}') returning id"
    )
    database.execute(
        "insert into outbox.secrets (subscription_id, secret) select id, 'clear' from outbox.subscriptions"
    )
    database.execute(harm)
    database.execute(f"alter database {database.info.dbname} set statement_timeout = '2s'")
    await keep_house(database_url, key)
    failed = {name: error for name, error in rounds(database).items() if error}
    assert failed.keys() == names
    assert len(rounds(database)) == 29
    for name, error in failed.items():
        assert any(message.startswith(f"{name}: {error}") for message in caplog.messages)
    assert database.execute("select sealed_to is not null from outbox.secrets").fetchall() == [(True,)]


async def test_a_publication_for_all_tables_stops_no_retention(engine, database, database_url) -> None:
    remove_one(engine)
    old_rows(database)
    database.execute("create publication everything for all tables")
    await keep_house(database_url)
    assert counts(database) == [0, 0, 0, 0]


async def test_a_publication_stops_no_leaf_made_later(database, database_url) -> None:
    database.execute("create publication everything for all tables")
    database.execute("select outbox.make_attempt_leaf(0, current_date - 99)")
    old_rows(database)
    database.execute("delete from outbox.attempts")
    assert counts(database)[1] == 0


async def test_a_transaction_open_on_a_removed_subscription_delays_only_that_row(
    engine, database, database_url
) -> None:
    held, _ = remove_one(engine), remove_one(engine)
    old_rows(database)
    with psycopg.connect(database_url) as application:
        application.execute("select from outbox.subscriptions where id = outbox.uuid_of(%s) for update", (held,))
        await keep_house(database_url)
        assert counts(database) == [0, 0, 0, 1]
    await keep_house(database_url)
    assert counts(database) == [0, 0, 0, 0]


async def test_a_round_waits_for_a_lock_a_bounded_time_only(engine, database, database_url) -> None:
    """The row's secret is locked, which the delete of its subscription meets only while it runs."""
    remove_one(engine)
    old_rows(database)
    with psycopg.connect(database_url) as application:
        application.execute("select from outbox.secrets for update")
        await keep_house(database_url)
        assert counts(database) == [0, 0, 0, 1]
        failed = {name: error for name, error in rounds(database).items() if error}
        assert failed.keys() == {"removed subscriptions"}
        assert "lock timeout" in (failed["removed subscriptions"] or "")


@pytest.mark.slow
async def test_a_lost_connection_is_said_and_made_again(database, database_url, caplog) -> None:
    keeper = asyncio.create_task(Housekeeping(Config(database_url=database_url)).run())
    try:
        async with asyncio.timeout(60):
            await until(lambda: len(rounds(database)) >= 11)
            database.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%%keeping'"
            )
            database.execute("delete from outbox.rounds")
            await until(lambda: any("connected again" in message for message in caplog.messages))
            await until(lambda: REMOVED in rounds(database))
    finally:
        keeper.cancel()
    assert [message.partition(":")[0] for message in caplog.messages] == ["housekeeping", "housekeeping"]
    assert "connection lost" in caplog.messages[0]


@asynccontextmanager
async def keeping(url: str) -> AsyncIterator[None]:
    """Let a relay's housekeeping run on connections of its own, and ask the server something at each look."""

    async def sign(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute("select 1")

    keeper = asyncio.create_task(Housekeeping(Config(database_url=url), sign).run())
    try:
        async with asyncio.timeout(60):
            yield
    finally:
        keeper.cancel()


async def test_a_round_that_ends_its_connection_each_time_stops_no_other_and_says_why(
    database, database_url, caplog
) -> None:
    """As transaction_timeout does, or a server that has no memory for it."""
    database.execute(
        "create or replace function outbox.make_attempt_leaf(ahead_days integer default 7, today date default null)"
        " returns text language sql as 'select pg_terminate_backend(pg_backend_pid())::text'"
    )
    async with keeping(database_url):
        await until(lambda: len(rounds(database)) == 28)
        await until(lambda: rounds(database)["attempt leaves"] is not None)
    assert "administrator command" in (rounds(database)["attempt leaves"] or "")
    assert [name for name, error in rounds(database).items() if error] == ["attempt leaves"]
    assert len(caplog.messages) <= 4


async def test_what_a_person_has_to_mend_for_all_rounds_is_said_once(database, database_url, caplog) -> None:
    """Somebody took the role's rights, or the schema: that is no news each time for each round."""
    database.execute("alter schema outbox rename to elsewhere")
    async with connected(database_url) as connection:
        keeper = Housekeeping(Config(database_url=database_url))
        for _ in range(3):
            await keeper.do_due(connection)
    told = [message.partition(": ")[2] for message in caplog.messages]
    assert len(told) == len(set(told)) <= 2
    assert all("run `relay migrate`" in message for message in told)


async def test_what_is_read_only_by_default_is_written_all_the_same(database, database_url, caplog) -> None:
    """A role may have that against accidents; deliveries go on, so the house is to be kept too."""
    database.execute(f"alter database {database.info.dbname} set default_transaction_read_only = on")
    async with keeping(database_url):
        await until(lambda: len(rounds(database)) == 28)
    assert set(rounds(database).values()) == {None}
    assert caplog.messages == []


async def test_a_connection_that_rests_is_not_ended(database, database_url, caplog) -> None:
    """Between two looks, of which there are few where many relays run."""
    database.execute(f"alter database {database.info.dbname} set idle_session_timeout = '300ms'")
    async with keeping(database_url):
        await until(lambda: len(rounds(database)) == 28)
        await asyncio.sleep(3)  # two pauses
    assert caplog.messages == []


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.1)


async def test_what_another_relay_did_is_not_done_again(database, database_url, monkeypatch) -> None:
    """Two relays; an hour later both would be due, and the second finds what the first just did."""
    now = 1000.0
    monkeypatch.setattr(housekeeping.time, "monotonic", lambda: now)
    first, second = (Housekeeping(Config(database_url=database_url)) for _ in range(2))
    async with connected(database_url) as connection:
        await second.do_due(connection)
        now += 4000
        await first.do_due(connection)
        before = dict(database.execute("select name, succeeded_at from outbox.rounds").fetchall())
        await second.do_due(connection)
        assert dict(database.execute("select name, succeeded_at from outbox.rounds").fetchall()) == before
        now += 4000
        database.execute("update outbox.rounds set succeeded_at = succeeded_at - interval '4000 seconds'")
        await second.do_due(connection)
        after = dict(database.execute("select name, succeeded_at from outbox.rounds").fetchall())
        assert all(after[name] > before[name] for name in before)


async def test_what_waits_for_anothers_turn_is_done_soon_after_it(database, database_url, monkeypatch) -> None:
    """Not an hour later: whoever had the turn may have stopped in it."""
    now = 1000.0
    monkeypatch.setattr(housekeeping.time, "monotonic", lambda: now)
    house = Housekeeping(Config(database_url=database_url))
    async with connected(database_url) as connection:
        with psycopg.connect(database_url) as stopped:
            stopped.execute("select from outbox.turns where name = 'housekeeping' for update")
            await house.do_due(connection)
        assert rounds(database) == {}
        now += 10
        await house.do_due(connection)
        assert len(rounds(database)) == 28


@pytest.mark.field("F76")
async def test_many_relays_ask_no_more_often_than_a_few(engine, database, database_url, monkeypatch) -> None:
    """Sixteen of them rest for eight seconds each, also from a round that another one did just now."""
    now = 1000.0
    monkeypatch.setattr(housekeeping.time, "monotonic", lambda: now)
    house = Housekeeping(Config(database_url=database_url))

    async def looked_after(seconds: float, age: str) -> bool:
        nonlocal now
        now += seconds
        database.execute(f"update outbox.rounds set succeeded_at = clock_timestamp() - interval '{age}'")
        await house.do_due(connection)
        ((old,),) = database.execute(
            "select succeeded_at < clock_timestamp() - interval '1 s' from outbox.rounds where name = 'statistics'"
        ).fetchall()
        return not old

    async with connected(database_url) as connection:
        await house.do_due(connection)
        assert house.pause_seconds == 1
        with engine.begin() as seeding:
            for _ in range(16):
                sign_in(seeding)
        assert not await looked_after(4000, "2 s")
        assert house.pause_seconds == 8
        assert not await looked_after(6, "1 hour")
        assert await looked_after(3, "1 hour")


@pytest.mark.field("F97")
async def test_each_round_says_how_often_it_is_due(database_url: str, database: psycopg.Connection[Any]) -> None:
    database.execute("drop function outbox.make_attempt_leaf")
    await keep_house(database_url)
    found = dict(database.execute("select name, every_seconds from outbox.rounds").fetchall())
    assert (found["attempt leaves"], found["event leaves"], found[REMOVED]) == (60, 60, 5)
    assert None not in found.values()
