"""The schema's runner: safe twice, at once from two processes, and clear about what it finds."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from outbox.errors import SchemaError
from outbox.schema import comparison, preconditions
from outbox.schema import runner as schema
from tests.support import catalog, databases, functions
from tests.support.databases import migrate, migrate_to


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_migrating_twice_applies_nothing_the_second_time(empty_database_url: str) -> None:
    assert migrate(empty_database_url) == schema.migrations()
    assert migrate(empty_database_url) == []


def test_four_migrators_at_once_apply_each_migration_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = [one for each in pool.map(migrate, [empty_database_url] * 4) for one in each]
    assert applied == schema.migrations()


def test_a_failed_migration_leaves_nothing_behind(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [*schema.migrations(), schema.Migration(9999, "broken", "select no_such_column")]
    monkeypatch.setattr(schema, "migrations", lambda: broken)
    with pytest.raises(psycopg.errors.UndefinedColumn):
        migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("select to_regnamespace('outbox')").fetchone() == (None,)


def test_migrating_under_a_hostile_search_path_makes_the_same_schema(empty_database_url: str) -> None:
    execute(
        empty_database_url,
        "create schema evil",
        "create function evil.isfinite(timestamptz) returns boolean language sql return false",
        "do $$ begin"
        " execute format('alter database %I set search_path = evil, pg_catalog', current_database()); end $$",
    )
    migrate(empty_database_url)
    with databases.engine_on(empty_database_url) as engine, engine.connect() as connection:
        assert comparison.differences(connection) == []


def test_the_script_for_psql_makes_the_same_schema(empty_database_url: str) -> None:
    psql = shutil.which("psql")
    script = schema.render_sql()
    if psql:
        subprocess.run(
            [psql, "-qX", empty_database_url], input=script, text=True, check=True, stdout=subprocess.DEVNULL
        )
    else:
        execute(empty_database_url, script.replace("\\set ON_ERROR_STOP on\n", ""))
    with databases.engine_on(empty_database_url) as engine, engine.connect() as connection:
        assert comparison.differences(connection) == []
        connection.rollback()
        assert schema.migrate(connection) == []


def test_the_committed_listing_is_what_this_server_makes(server_url: str) -> None:
    """After a change of the schema: python -m tests.support.catalog"""
    assert catalog.CATALOG.read_text(encoding="utf-8").splitlines() == catalog.listing(server_url)


def test_the_list_of_functions_names_the_newest_file_of_each(server_url: str) -> None:
    """After a change of the schema: python -m tests.support.functions"""
    assert functions.FUNCTIONS.read_text(encoding="utf-8") == functions.listing(server_url)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("alter table outbox.subscriptions add column colour text", "unexpected: column subscriptions.colour text"),
        ("alter table outbox.events alter column type drop not null", "missing: column events.type text not null"),
        ("alter table outbox.deliveries alter column attempts drop default", "missing: column deliveries.attempts"),
        ("drop index outbox.deliveries_waiting", "missing: index CREATE INDEX deliveries_waiting"),
        ("alter table outbox.events disable trigger mark_pending", "missing: trigger CREATE TRIGGER mark_pending"),
        ("alter table outbox.deliveries drop constraint counts_from_zero", "missing: constraint deliveries.counts"),
        ("alter table outbox.pending reset (autovacuum_vacuum_threshold)", "missing: table pending with"),
        ("alter function outbox.mark_pending() security invoker", "missing: function mark_pending()"),
        ("alter table outbox.pending set unlogged", "missing: table pending with"),
        ("alter table outbox.deliveries enable row level security", "missing: table deliveries with"),
        ("alter table outbox.events detach partition outbox.events_default", "missing: table events_default default"),
        (
            "alter function outbox.text_id(text, uuid) volatile",
            "missing: function text_id(prefix text, id uuid) text is",
        ),
        ("update outbox.schema_migrations set checksum = '' where version = 1", "migration 0001 was edited"),
    ],
)
def test_a_change_by_hand_is_named(engine: sa.Engine, change: str, difference: str) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text(change))
        assert any(line.startswith(difference) for line in comparison.differences(connection))


def test_a_setting_of_the_database_is_no_difference(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("set local quote_all_identifiers = on"))
        assert comparison.differences(connection) == []


def test_leaves_and_a_payload_compression_are_no_difference(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("select outbox.make_event_leaf(20)"))
        connection.execute(sa.text("alter table outbox.events alter column payload set compression default"))
        assert comparison.differences(connection) == []


def test_payloads_are_compressed_by_lz4_where_the_server_has_it(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        offered = connection.scalar(
            sa.text("select enumvals::text from pg_settings where name = 'default_toast_compression'")
        )
        used = connection.scalars(
            sa.text(
                "select distinct attcompression::text from pg_attribute join pg_class c on c.oid = attrelid"
                " where attname = 'payload' and relnamespace = 'outbox'::regnamespace and relname like 'events%'"
                " and relkind in ('r', 'p')"
            )
        ).all()
        assert used == (["l"] if "lz4" in offered else [""])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("drop schema outbox cascade", "no outbox schema: run `relay migrate`"),
        ("delete from outbox.schema_migrations where version > 1", "is at version 1, .* run `relay migrate`"),
        ("insert into outbox.schema_migrations values (4711, 'x', 'x')", "version 4711, newer .* upgrade outbox-relay"),
        ("create role {name} login; grant {name} to current_user; set role {name}", "grant outbox_relay to it"),
    ],
)
def test_a_schema_that_does_not_fit_is_one_clear_line(engine: sa.Engine, change: str, words: str) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text(change.format(name=f"stranger_{engine.url.database}")))
        with pytest.raises(SchemaError, match=words) as refused:
            schema.require_current(connection)
        assert "\n" not in str(refused.value)


def test_a_schema_that_fits_is_accepted(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        schema.require_current(connection)
        assert connection.scalar(sa.text("select 1")) == 1


def at_the_version_before(url: str, name: str) -> None:
    """Make the schema as it was before the migration of this name, with its leaves."""
    (version,) = (migration.version for migration in schema.migrations() if migration.name == name)
    migrate_to(url, version - 1)


def test_events_recorded_before_the_rules_became_one_check_stay(empty_database_url: str) -> None:
    at_the_version_before(empty_database_url, "lighter_rows")
    into = "insert into outbox.events (seq, type, payload) values"
    execute(empty_database_url, f"{into} (nextval('outbox.events_seq'), 'a', '1'), (4000000000, 'b', '2')")
    migrate(empty_database_url)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        assert connection.execute("select type from outbox.events order by seq").fetchall() == [("a",), ("b",)]
        made = "select to_regclass('outbox.events_4000000001') is not null"
        assert connection.execute(made).fetchone() == (True,)  # migrate found the sequence behind the rows
        for seq in (2, 3999999999, 4000000001):  # of an old leaf, of the default one, and of the new one
            with pytest.raises(psycopg.errors.CheckViolation) as refused:
                connection.execute(f"{into} ({seq}, 'a b', '1')")
            assert refused.value.diag.constraint_name == "type_is_dotted_words"
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("update outbox.events set available_at = 'infinity'")
    with databases.engine_on(empty_database_url) as engine, engine.connect() as connection:
        assert comparison.differences(connection) == []


@pytest.mark.slow
def test_a_transaction_that_stays_open_ends_migrate_with_one_line_and_changes_nothing(empty_database_url: str) -> None:
    """Every INSERT would queue behind a migration that waits, so it waits for a few seconds only."""
    at_the_version_before(empty_database_url, "lighter_rows")
    with psycopg.connect(empty_database_url) as open_transaction:
        open_transaction.execute("select from outbox.events")
        with pytest.raises(SchemaError, match=r"^migrate: a table .* is in use by another transaction") as refused:
            migrate(empty_database_url)
    assert "\n" not in str(refused.value)
    assert "lighter_rows" in [migration.name for migration in migrate(empty_database_url)]


def test_a_role_that_was_given_insert_by_hand_still_records_after_the_rules_became_one_check(
    empty_database_url: str,
) -> None:
    """The check runs as whoever inserts, so `migrate` gives that role what it needs."""
    at_the_version_before(empty_database_url, "lighter_rows")
    name = f"outbox_test_{secrets.token_hex(6)}"
    insert = f"set role {name}; insert into outbox.events (type, payload) values ('a', '1')"
    execute(
        empty_database_url,
        f"create role {name}",
        f"grant usage on schema outbox to {name}; grant usage on sequence outbox.events_seq to {name}",
        f"grant insert (type, payload) on outbox.events to {name}",
        f"grant execute on function outbox.uuid7() to {name}",
        insert,
    )
    try:
        migrate(empty_database_url)
        execute(empty_database_url, insert)
    finally:
        execute(empty_database_url, f"drop owned by {name}; drop role {name}")


def test_a_rule_of_events_heeds_no_search_path_of_its_caller(database_url: str) -> None:
    execute(
        database_url,
        "create schema evil; create domain evil.text as pg_catalog.text",
        "create function evil.octet_length(pg_catalog.text) returns integer language sql return 0",
        "create function evil.any(bigint, bigint) returns boolean language sql return true",
        "create operator evil.>= (leftarg = bigint, rightarg = bigint, function = evil.any)",
    )
    with psycopg.connect(database_url) as connection:
        connection.execute("set search_path = evil, pg_catalog")
        with pytest.raises(psycopg.errors.CheckViolation) as refused:
            connection.execute("insert into outbox.events (seq, type, payload) values (-5, 'a', '1')")
        assert refused.value.diag.constraint_name == "seq_is_drawn"


def test_a_newer_schema_is_not_touched_by_migrate(database_url: str) -> None:
    execute(database_url, "insert into outbox.schema_migrations values (4711, 'x', 'x')")
    with pytest.raises(SchemaError, match="newer"):
        migrate(database_url)


def test_a_database_that_is_not_utf8_is_refused_before_anything_is_written(server_url: str) -> None:
    name = "outbox_test_latin1_" + databases.secrets.token_hex(6)
    execute(server_url, f"create database {name} encoding 'LATIN1' locale 'C' template template0")
    try:
        with pytest.raises(SchemaError, match="encoding is LATIN1"):
            migrate(databases.named(server_url, name))
    finally:
        execute(server_url, f"drop database {name} with (force)")


def test_a_server_that_is_too_old_is_refused(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditions, "OLDEST_SERVER", 99)
    with engine.connect() as connection, pytest.raises(SchemaError, match="99 or later is needed"):
        schema.migrate(connection)


def test_every_migration_is_in_the_package() -> None:
    directory = Path(schema.__file__).parent / "migrations"
    numbers = [migration.version for migration in schema.migrations()]
    assert numbers == sorted(int(file.name[:4]) for file in directory.glob("0*.sql")), "a number may be left out"
