"""A migration has all its tables, or none: nobody waits for it in a circle, and it ends while others work."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

import outbox.alembic
from outbox.errors import SchemaError
from outbox.schema import runner as schema
from outbox.schema import table_locks
from outbox.schema.table_locks import tables_changed_by
from tests.support import databases
from tests.support.databases import migrate, migrate_to
from tests.support.waiting import wait_until

KNOWN = schema.migrations()[-1].version
FIRST_KEPT = 9  # the schema of the oldest version that is upgraded in the tests

# Modes in which others can neither read nor write a table, or not write it.
HELD = """
select distinct c.relname from pg_locks l join pg_class c on c.oid = l.relation
where l.pid = pg_backend_pid() and l.mode in (
        'AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')
    and c.relname = any (%(names)s)"""
THERE = """
select relname from pg_class where relnamespace = 'outbox'::regnamespace and relkind in ('r', 'p', 'v')
    and not relispartition and relname <> 'schema_migrations'"""
WAITS = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


def test_each_migration_locks_no_table_that_its_text_does_not_tell_of(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate_to(empty_database_url, FIRST_KEPT)
    locked: set[str] = set()
    monkeypatch.setattr(schema, "lock_tables", lambda _cursor, names, _is_in_use: locked.update(names))
    with databases.engine_on(empty_database_url) as engine, engine.connect() as connection:
        for migration in schema.migrations()[FIRST_KEPT:]:
            with connection.begin():
                there = connection.exec_driver_sql(THERE).scalars().all()
                locked.clear()
                schema.apply(connection, migration.version)
                held = connection.exec_driver_sql(HELD, {"names": there}).scalars().all()
                assert set(held) <= locked, migration.name


def test_what_a_function_does_when_it_is_called_is_not_of_the_migration_that_makes_it() -> None:
    sql = """
        create function outbox.one() returns void language plpgsql as $$ begin lock table outbox.one; end $$;
        create function outbox.two() returns bigint language sql begin atomic select 1; end;
        alter table outbox.three add column x integer;
        create or replace function outbox.four() returns void language plpgsql as $f$ begin
            execute 'alter table outbox.four rename to $$'; end $f$;
        do $$ begin alter table only outbox.five drop column x; end $$;
        create table outbox.six (id uuid references outbox.seven);
        create constraint trigger eight after insert on outbox.eight for each row execute function outbox.one();
        create unique index nine on outbox.nine (id); drop trigger ten on outbox.ten;
        create or replace view outbox.eleven as select from outbox.twelve;"""
    told = {"three", "five", "seven", "eight", "nine", "ten", "eleven"}
    assert tables_changed_by(sql) == told


def test_a_table_of_somebody_elses_may_have_any_name(empty_database_url: str) -> None:
    """Its replica identity is set with that of ours, so it is locked too."""
    migrate_to(empty_database_url, 41)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute('create table outbox."backup-2026" as select from outbox.events')
    assert [migration.version for migration in migrate(empty_database_url)] == list(range(42, KNOWN + 1))


def in_the_background(url: str) -> tuple[threading.Thread, list[Any]]:
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(migrate(url))
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ended


def look_for_circles_soon(url: str) -> None:
    look_for_circles_after(url, "200ms")


def look_for_circles_after(url: str, time_: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"alter database {connection.info.dbname} set deadlock_timeout = '{time_}'")


@pytest.mark.parametrize(("first", "second"), [("events", "dead_letters"), ("dead_letters", "events")])
def test_a_transaction_that_wants_a_second_table_gets_it_and_the_migration_goes_on_after_it(
    empty_database_url: str, first: str, second: str
) -> None:
    """0042 changes both: in whichever order it took them, one of the two transactions would end both in a deadlock."""
    migrate_to(empty_database_url, 41)
    look_for_circles_soon(empty_database_url)
    with psycopg.connect(empty_database_url) as application, psycopg.connect(empty_database_url) as watching:
        watching.autocommit = True
        application.execute(f"select from outbox.{first}")
        thread, ended = in_the_background(empty_database_url)
        wait_until(lambda: watching.execute(WAITS).fetchone() != (0,), message="migrate waits for nothing")
        application.execute(f"select from outbox.{second}")
        application.commit()
        thread.join(30)
    assert [migration.version for migration in ended[0]] == list(range(42, KNOWN + 1))


def test_transactions_of_which_one_is_always_open_are_waited_for(empty_database_url: str) -> None:
    migrate_to(empty_database_url, 41)
    ended = threading.Event()

    def keep_in_use() -> None:
        with psycopg.connect(empty_database_url) as application:
            while not ended.is_set():
                application.execute("select from outbox.events")
                time.sleep(random.uniform(0.3, 0.6))
                application.commit()

    threads = [threading.Thread(target=keep_in_use) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert [migration.version for migration in migrate(empty_database_url)] == list(range(42, KNOWN + 1))
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)


def test_a_transaction_that_holds_something_before_does_not_wait_until_somebody_ends(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of Alembic or Django: whoever it waits for may wait for what it holds."""
    migrate_to(empty_database_url, 41)
    monkeypatch.setattr(table_locks, "PATIENCE_SECONDS", 0.0)

    def end_soon() -> None:
        with psycopg.connect(empty_database_url, autocommit=True) as watching:
            wait_until(lambda: watching.execute(WAITS).fetchone() != (0,), message="migrate waits for nothing")
        time.sleep(1)  # several times as long as it waits, and less than it would wait if it held nothing
        application.commit()

    with psycopg.connect(empty_database_url) as application, databases.engine_on(empty_database_url) as engine:
        application.execute("select from outbox.dead_letters")
        thread = threading.Thread(target=end_soon)
        thread.start()
        with engine.begin() as connection:
            connection.exec_driver_sql("create table public.theirs ()")
            with pytest.raises(SchemaError, match="in use by another transaction"), connection.begin_nested():
                schema.apply(connection)
        thread.join(30)


def wait_for_theirs(url: str, ended: list[Any]) -> threading.Thread:
    """Start a transaction of the application that has a table of ours, and then waits for one of its own."""

    def run() -> None:
        time.sleep(random.uniform(0, 0.3))
        with psycopg.connect(url) as application:
            application.execute("select from outbox.events")
            try:
                application.execute("select from public.theirs")
                ended.append(None)
            except psycopg.Error as error:
                ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def script_from(since: int) -> str:
    """What `alembic upgrade --sql` prints."""
    buffer = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer})
    outbox.alembic.upgrade(Operations(context), since=since, to=KNOWN)
    return buffer.getvalue()


def by_script(connection: sa.Connection) -> None:
    run(connection, script_from(41))


def run(connection: sa.Connection, sql: str) -> None:
    connection.exec_driver_sql("select 1")  # begins a transaction of SQLAlchemy's
    connection.connection.cursor().execute(sql)


@pytest.mark.parametrize("migrate_it", [schema.apply, by_script])
def test_whoever_waits_for_what_a_transaction_had_before_is_not_ended(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, migrate_it: Callable[[sa.Connection], object]
) -> None:
    """Alembic changed a table of the application's first. The migration gives up, and the application goes on."""
    migrate_to(empty_database_url, 41)
    look_for_circles_soon(empty_database_url)
    monkeypatch.setattr(table_locks, "PATIENCE_SECONDS", 1.5)
    ended: list[Any] = []
    with databases.engine_on(empty_database_url) as engine, engine.connect() as connection:
        connection.exec_driver_sql("create table public.theirs ()")
        connection.commit()
        connection.exec_driver_sql("alter table public.theirs add column x integer")
        threads = [wait_for_theirs(empty_database_url, ended) for _ in range(12)]
        time.sleep(0.1)
        with pytest.raises((SchemaError, psycopg.errors.LockNotAvailable), match="in use by another transaction"):
            migrate_it(connection)
        connection.rollback()
        for thread in threads:
            thread.join(30)
        assert ended == [None] * 12
        migrate_it(connection)
        connection.commit()
    assert migrate(empty_database_url) == []


def test_a_script_locks_all_that_it_changes_first(empty_database_url: str) -> None:
    migrate_to(empty_database_url, FIRST_KEPT)
    before, mark, rest = script_from(FIRST_KEPT).partition(f"-- outbox {FIRST_KEPT + 1:04}")
    with databases.engine_on(empty_database_url) as engine, engine.begin() as connection:
        there = connection.exec_driver_sql(THERE).scalars().all()
        run(connection, before)
        locked = connection.exec_driver_sql(HELD, {"names": there}).scalars().all()
        run(connection, mark + rest)
        held = connection.exec_driver_sql(HELD, {"names": there}).scalars().all()
        assert set(held) == set(locked)
        assert "events" in locked


def test_the_wait_for_a_table_holds_up_those_who_record_for_little_longer_than_a_look_for_circles(
    empty_database_url: str,
) -> None:
    """A quarter longer, 2.5 s here. Who records gives up, by the server's own clock, before it is twice as long."""
    migrate_to(empty_database_url, 41)
    look_for_circles_after(empty_database_url, "2s")
    with psycopg.connect(empty_database_url) as dump, psycopg.connect(empty_database_url) as application:
        application.autocommit = True
        application.execute("set lock_timeout = '3400ms'")
        dump.execute("select from outbox.events")
        thread, ended = in_the_background(empty_database_url)
        recorded = 0
        while thread.is_alive():
            application.execute("insert into outbox.events (type, payload) values ('a', '1')")
            recorded += 1
        thread.join()
    assert isinstance(ended[0], SchemaError)
    assert recorded > 1, "between the waits"


def test_the_bound_of_a_transaction_around_it_is_as_before(empty_database_url: str) -> None:
    migrate_to(empty_database_url, KNOWN - 1)
    with databases.engine_on(empty_database_url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("set local lock_timeout = '7s'")
        schema.lock_tables(connection.connection.cursor(), ["events", "no_such_table"], lambda _: False)
        assert connection.exec_driver_sql("show lock_timeout").scalar() == "7s"
        assert connection.exec_driver_sql(HELD, {"names": ["events"]}).scalars().all() == ["events"]
