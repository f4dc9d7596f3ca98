"""Retention deletes what is old and done, and never anything else; housekeeping does it while the relay runs."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import IsolationLevel

from outbox import subscriptions
from relay.config.options import Config
from relay.operations.prune import Pruned, count_prunable, prune
from relay.process import housekeeping, housekeeping_rounds

DAYS = {"events_days": 30, "attempts_days": 90, "resolutions_days": 90}
SEQS = sa.text("select seq from outbox.events order by seq")


@pytest.fixture
def connection(engine: sa.Engine) -> Any:
    with engine.connect() as connection:
        yield connection


def execute(connection: sa.Connection, statement: str, **parameters: Any) -> Any:
    with connection.begin():
        result = connection.execute(sa.text(statement), parameters)
        return result.scalars().all() if result.returns_rows else None


def record(connection: sa.Connection, *, days_old: int, resolved: bool = True) -> int:
    """Record an event so many days ago, resolved to nobody unless told otherwise; return its seq."""
    (seq,) = execute(
        connection,
        """insert into outbox.events (type, payload, recorded_at)
           values ('order.created', '{}', clock_timestamp() - make_interval(days => :days)) returning seq""",
        days=days_old,
    )
    if resolved:
        execute(connection, "delete from outbox.pending where event_seq = :seq", seq=seq)
        execute(
            connection,
            """insert into outbox.resolutions (at, first_seq, seqs, matches)
               values (clock_timestamp() - make_interval(days => :days), :seq, array[:seq], '{1}')""",
            days=days_old,
            seq=seq,
        )
    return int(seq)


def attempt(connection: sa.Connection, seq: int, *, days_old: int) -> None:
    execute(
        connection,
        """insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, at, verdict, outcome,
                                        milliseconds)
           values (gen_random_uuid(), :seq, gen_random_uuid(), 1, clock_timestamp() - make_interval(days => :days),
                   'delivered', 'delivered', 5)""",
        seq=seq,
        days=days_old,
    )


def deliver(connection: sa.Connection, seq: int, subscription_id: str | None = None) -> None:
    execute(
        connection,
        """insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
           values (gen_random_uuid(), :seq, coalesce(outbox.uuid_of(:subscription_id), gen_random_uuid()),
                   'infinity')""",
        seq=seq,
        subscription_id=subscription_id,
    )


def remaining(connection: sa.Connection, table: str) -> list[int]:
    column = {"events": "seq", "resolutions": "first_seq"}.get(table, "event_seq")
    return list(execute(connection, f"select {column} from outbox.{table} order by 1"))


def test_old_events_go_in_batches_and_young_ones_stay(connection: sa.Connection) -> None:
    for days_old in (400, 40, 31, 29, 35, 0):
        record(connection, days_old=days_old)
    assert count_prunable(connection, None, **DAYS).events == 4
    connection.rollback()
    assert prune(connection, None, **DAYS, batch_rows=2).events == 4
    assert remaining(connection, "events") == [4, 6]


@pytest.mark.case("C25")
def test_nothing_undelivered_goes_whatever_its_age(connection: sa.Connection) -> None:
    unresolved = record(connection, days_old=4000, resolved=False)
    waiting = record(connection, days_old=4000)
    deliver(connection, waiting)
    record(connection, days_old=4000)
    for seq in (unresolved, waiting):
        attempt(connection, seq, days_old=3999)
    assert prune(connection, None, **DAYS) == Pruned(events=1, attempts=0, resolutions=1)
    assert remaining(connection, "events") == [unresolved, waiting]
    assert remaining(connection, "attempts") == [unresolved, waiting]
    assert remaining(connection, "resolutions") == [waiting]


def test_the_record_of_attempts_outlives_its_event(connection: sa.Connection) -> None:
    for days_old in (40, 100):
        attempt(connection, record(connection, days_old=days_old), days_old=days_old)
    assert prune(connection, None, **DAYS) == Pruned(events=2, attempts=1, resolutions=1)
    assert remaining(connection, "events") == []
    assert remaining(connection, "attempts") == remaining(connection, "resolutions") == [1]


def test_dead_letters_are_not_pruned(connection: sa.Connection) -> None:
    seq = record(connection, days_old=4000)
    execute(
        connection,
        """insert into outbox.dead_letters (delivery_id, event_seq, event_id, tenant, type, payload, recorded_at,
                                            attempts, died_at, reason)
           select gen_random_uuid(), seq, id, tenant, type, payload, recorded_at, 3, recorded_at, 'http_5xx'
           from outbox.events""",
    )
    prune(connection, None, **DAYS)
    assert remaining(connection, "dead_letters") == [seq]


def test_a_whole_leaf_goes_at_once_and_counts_its_rows(connection: sa.Connection) -> None:
    for _ in range(3):
        record(connection, days_old=31)
    execute(connection, "update outbox.resolutions set at = at - interval '70 days'")
    execute(connection, "select setval('outbox.events_seq', 1000000)")
    assert prune(connection, None, **DAYS) == Pruned(events=3, attempts=0, resolutions=3)
    assert execute(connection, "select outbox.drop_empty_leaf()") == ["outbox.events_1"]


def test_an_old_day_of_attempts_goes_at_once(connection: sa.Connection) -> None:
    execute(connection, "select outbox.make_attempt_leaf(0, current_date - 100)")
    attempt(connection, 1, days_old=100)
    leaf = execute(connection, "select tableoid::regclass::text from outbox.attempts")
    assert prune(connection, None, **DAYS).attempts == 1
    assert execute(connection, "select outbox.drop_empty_leaf()") == leaf


def test_an_old_day_of_attempts_stays_while_an_event_of_it_lives(connection: sa.Connection) -> None:
    execute(connection, "select outbox.make_attempt_leaf(0, current_date - 100)")
    seq = record(connection, days_old=100)
    deliver(connection, seq)
    attempt(connection, seq, days_old=100)
    attempt(connection, 4711, days_old=100)
    assert prune(connection, None, **DAYS).attempts == 1
    assert remaining(connection, "attempts") == [seq]


def test_an_event_that_a_replay_holds_is_passed_over(connection: sa.Connection, database_url: str) -> None:
    """The replay's delivery is not committed yet when retention looks."""
    seqs = [record(connection, days_old=40) for _ in range(3)]
    with psycopg.connect(database_url) as replay:
        replay.execute("select from outbox.events where seq = %s for key share", (seqs[1],))
        assert prune(connection, None, **DAYS).events == 2
    assert remaining(connection, "events") == [seqs[1]]


def test_counting_deletes_nothing_and_says_what_pruning_then_does(connection: sa.Connection) -> None:
    for days_old in (10, 40, 100, 200):
        attempt(connection, record(connection, days_old=days_old), days_old=days_old)
    deliver(connection, record(connection, days_old=300))
    counted = count_prunable(connection, None, **DAYS)
    connection.rollback()
    assert len(remaining(connection, "events")) == 5
    assert prune(connection, None, **DAYS) == counted == Pruned(events=3, attempts=2, resolutions=2)


# Housekeeping


def keep_house(database_url: str) -> None:
    """Do every round once."""

    async def once() -> None:
        keeper = housekeeping.Housekeeping(Config(database_url=database_url))
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
            await keeper.do_due(connection)

    asyncio.run(once())


def test_housekeeping_makes_leaves_and_keeps_retention(connection: sa.Connection, database_url: str) -> None:
    for days_old in (40, 10):
        record(connection, days_old=days_old)
    execute(connection, "select setval('outbox.events_seq', 20000000)")
    leaves = "select count(*) from outbox.leaves_of('outbox.events') where to_value::bigint > 20000000"
    assert execute(connection, leaves) == [0]
    keep_house(database_url)
    assert execute(connection, leaves) == [9]
    assert remaining(connection, "events") == [2]


def test_a_removed_subscription_loses_its_deliveries_then_its_row(
    connection: sa.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping_rounds, "BATCH_ROWS", 2)
    with connection.begin():
        kept, removed = (subscriptions.add(connection, "https://example.com/hook", ["order.*"]) for _ in range(2))
        subscriptions.remove(connection, removed.id)
    seq = record(connection, days_old=1)
    for _ in range(5):
        deliver(connection, seq, removed.id)
    deliver(connection, seq, kept.id)
    keep_house(database_url)
    assert execute(connection, "select outbox.text_id('sub', subscription_id) from outbox.deliveries") == [kept.id]
    assert len(execute(connection, "select id from outbox.subscriptions")) == 2

    execute(connection, "update outbox.subscriptions set removed_at = removed_at - interval '2 hours'")
    keep_house(database_url)
    assert execute(connection, "select outbox.text_id('sub', id) from outbox.subscriptions") == [kept.id]


def test_secrets_that_ran_out_are_deleted(connection: sa.Connection, database_url: str) -> None:
    with connection.begin():
        subscriptions.add(connection, "https://example.com/hook", ["order.*"])
    insert = """insert into outbox.secrets (subscription_id, secret, expires_at)
                select id, :secret, clock_timestamp() + cast(:ends_in as interval) from outbox.subscriptions"""
    for ends_in in ("-1 second", "1 hour"):
        execute(connection, insert, secret=ends_in, ends_in=ends_in)
    keep_house(database_url)
    assert len(execute(connection, "select 1 from outbox.secrets")) == 2
    assert execute(connection, "select 1 from outbox.secrets where secret = '-1 second'") == []


def test_one_round_that_meets_a_lock_does_not_stop_the_others(connection: sa.Connection, database_url: str) -> None:
    execute(connection, "select setval('outbox.events_seq', 20000000)")
    record(connection, days_old=40)
    with psycopg.connect(database_url) as application:
        application.execute("insert into outbox.events (type, payload) values ('order.created', '{}')")
        keep_house(database_url)
        assert execute(connection, "select count(*) from outbox.leaves_of('outbox.events')") == [9]
    assert len(remaining(connection, "events")) == 1


def test_on_a_read_only_database_housekeeping_waits_without_a_word(
    connection: sa.Connection, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After a failover the engine says so; ten rounds need not say it too."""
    database = execute(connection, "select current_database()")[0]
    execute(connection, f"alter database {database} set default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        keep_house(database_url)
    assert caplog.messages == []
