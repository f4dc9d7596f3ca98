"""What `migrate --check` sees, and what it must not see: after a dump and a restore there is no false alarm."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

import outbox
from outbox import schema, subscriptions
from outbox.errors import SchemaError
from relay.operations.schema_findings import find_in_schema
from relay.operations.status.status import status
from tests.support import databases
from tests.support.databases import engine_on, migrate, migrate_to
from tests.support.dumps import program


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def check(url: str) -> tuple[int, str]:
    """Exit code and text of `relay migrate --check`."""
    from relay.cli import cli

    ended = CliRunner().invoke(cli, ["migrate", "--check"], env={"RELAY_DATABASE_URL": url}, standalone_mode=False)
    assert ended.exception is None, ended.exception
    return int(ended.return_value), ended.stdout


@pytest.mark.field("F20")
def test_the_check_survives_a_dump_and_a_restore_twice(
    database_url: str, database: psycopg.Connection[Any], server_url: str
) -> None:
    dump, restore = program("pg_dump", database_url), program("pg_restore", database_url)
    with engine_on(database_url) as engine, engine.begin() as connection:
        subscriptions.add(connection, "https://example.com", ["order.*"])
        outbox.record(connection, "order.created", {"id": 7})
        raise_to = "update outbox.settings set value = {} where name = 'max_payload_bytes'"
        connection.execute(sa.text(raise_to.format(600_000)))
        connection.execute(sa.text("select outbox.make_event_leaf(20)"))
        for seq in ("nextval('outbox.events_seq')", "9500000", "3000000000"):  # of the first leaf, a later one, no leaf
            large = f"insert into outbox.events (seq, type, payload) values ({seq}, 'a', repeat('1', 500000))"
            connection.execute(sa.text(large))
        connection.execute(sa.text("select setval('outbox.events_seq', 3000000000)"))
        connection.execute(sa.text(raise_to.format(300_000)))
    source = database_url
    with databases.database(server_url) as second, databases.database(server_url) as third:
        for target in (second, third):
            archive = subprocess.run([dump, "-Fc", source], capture_output=True, check=True).stdout
            ended = subprocess.run([restore, "-d", target, "--exit-on-error"], input=archive, capture_output=True)
            assert ended.returncode == 0, ended.stderr
            assert check(target) == (0, "the schema is as it should be\n")
            source = target
        with psycopg.connect(third, autocommit=True) as connection:
            assert connection.execute("select count(*) from outbox.pending").fetchone() == (4,)
            assert connection.execute("select outbox.max_payload_bytes()").fetchone() == (300_000,)
            assert connection.execute("select max(octet_length(payload)) from outbox.events").fetchone() == (500_000,)
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute("insert into outbox.events (type, payload) values ('a', repeat('1', 300001))")
            connection.execute("alter function outbox.note_secret(outbox.secrets, outbox.secrets) volatile strict")
        assert "function note_secret" in check(third)[1]
        assert migrate(third) == []


@pytest.mark.field("F20")
def test_what_was_made_again_from_its_own_print_is_no_drift_and_a_changed_body_is(
    database_url: str, database: psycopg.Connection[Any]
) -> None:
    """As a dump and a restore does it; it runs where there are no such programs."""
    statement = "select pg_get_functiondef(oid) from pg_proc where pronamespace = 'outbox'::regnamespace"
    for _ in range(2):
        for (definition,) in database.execute(statement).fetchall():
            database.execute(definition)
        assert check(database_url)[0] == 0
    (body,) = database.execute(f"{statement} and proname = 'resealed'").fetchone() or ()
    head, _, rest = body.partition("BEGIN ATOMIC")
    database.execute(f"{head}BEGIN ATOMIC{rest.replace(' OR ', ' AND ', 1)}")
    code, told = check(database_url)
    assert code == 1
    assert "missing: function resealed(" in told
    assert "unexpected: function resealed(" in told


@pytest.mark.field("F63")
def test_no_index_sorts_text_by_a_collation_of_the_operating_system(database: psycopg.Connection[Any]) -> None:
    statement = """
        select indexrelid::regclass::text, c.collname from pg_index i join pg_class t on t.oid = i.indrelid,
               unnest(i.indcollation) collation_oid join pg_collation c on c.oid = collation_oid
        where t.relnamespace = 'outbox'::regnamespace and c.collname <> 'C'"""
    assert database.execute(statement).fetchall() == []


@pytest.mark.field("F63")
def test_a_collation_of_another_version_is_named(database_url: str, database: psycopg.Connection[Any]) -> None:
    assert check(database_url)[0] == 0
    database.execute("update pg_database set datcollversion = 'older' where datname = current_database()")
    code, told = check(database_url)
    assert code == 1
    assert "texts were sorted by version older of its collation" in told
    assert "refresh collation version" in told


@pytest.mark.field("F63")
def test_a_collation_that_an_index_of_ours_uses_is_named(database: psycopg.Connection[Any]) -> None:
    if database.execute("select 1 from pg_collation where collname = 'und-x-icu'").fetchone() is None:
        pytest.skip("this server was built without ICU")
    database.execute('create index by_hand on outbox.events (type collate "und-x-icu")')
    assert database.execute("select * from outbox.collation_findings()").fetchall() == []
    database.execute("update pg_collation set collversion = 'older' where collname = 'und-x-icu'")
    ((code, subject, seen, _mend),) = database.execute("select * from outbox.collation_findings()").fetchall()
    assert (code, subject) == ("collation.changed", "collation und-x-icu")
    assert "made with version older" in seen


@pytest.mark.field("F63")
def test_migrating_from_an_old_collation_builds_the_small_indexes_again_and_none_of_events(
    empty_database_url: str,
) -> None:
    file = "select c.relname, pg_relation_filenode(c.oid) from pg_class c where relnamespace = 'outbox'::regnamespace"
    large = f"{file} and relname ~ '^(events|deliveries|attempts|dead_letters|resolutions|pending)' and relkind <> 'p'"
    migrate_to(empty_database_url, 5)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("insert into outbox.subscriptions (url, types) values ('https://example.com', '{a,B.*,ä}')")
        connection.execute("insert into outbox.events (type, payload) values ('a', '1')")
        before = dict(connection.execute(large).fetchall())
        migrate(empty_database_url)
        after = dict(connection.execute(large).fetchall())
        assert before.pop("deliveries_due") != after["deliveries_due"], "0043 gives it a condition, of no text"
        assert {name: after[name] for name in before} == before
        assert connection.execute("select count(*) from outbox.subscription_types").fetchone() == (3,)


@pytest.mark.field("F63")
@pytest.mark.field("F70")
@pytest.mark.parametrize("role", ["outbox_reader", "outbox_relay", "outbox_operator"])
def test_status_names_what_the_check_names_whoever_asks(
    engine: sa.Engine, database: psycopg.Connection[Any], role: str
) -> None:
    database.execute("update pg_database set datcollversion = 'older' where datname = current_database()")
    database.execute(INSERT)
    database.execute("select setval('outbox.events_seq', 1, false)")
    with engine.begin() as connection:
        connection.execute(sa.text(f"set local role {role}"))
        codes = [finding.code for finding in status(connection, None).findings]
    assert {"collation.changed", "sequence.behind"} <= set(codes)


INSERT = "insert into outbox.events (type, payload) values ('a', '1')"


@pytest.mark.field("F70")
def test_a_sequence_behind_its_rows_is_named_and_mended(database_url: str, database: psycopg.Connection[Any]) -> None:
    for _ in range(5):
        database.execute(INSERT)
    for behind in ("setval('outbox.events_seq', 2)", "setval('outbox.events_seq', 5, false)"):
        database.execute(f"select {behind}")
        code, told = check(database_url)
        assert code == 1
        assert "there are rows up to 5: inserts will fail" in told
        migrate(database_url)
        assert check(database_url)[0] == 0
    database.execute(INSERT)
    assert database.execute("select max(seq) from outbox.events").fetchone() == (6,)


@pytest.mark.field("F70")
def test_a_sequence_of_any_table_is_looked_at(database: psycopg.Connection[Any]) -> None:
    database.execute("create table outbox.another (id bigint generated by default as identity, word text)")
    database.execute("insert into outbox.another values (7, 'by hand')")
    found = database.execute("select sequence::text, last, highest from outbox.sequences_behind()").fetchall()
    assert found == [("outbox.another_id_seq", 0, 7)]
    database.execute("select outbox.mend()")
    assert database.execute("insert into outbox.another (word) values ('x') returning id").fetchone() == (8,)


@pytest.mark.field("F70")
def test_a_sequence_that_is_ahead_stays_where_it_is(database_url: str, database: psycopg.Connection[Any]) -> None:
    database.execute(INSERT)
    database.execute("select setval('outbox.events_seq', 4711)")
    migrate(database_url)
    assert database.execute("select nextval('outbox.events_seq')").fetchone() == (4712,)


@pytest.mark.field("F68")
def test_rows_of_every_table_and_of_leaves_made_later_can_be_deleted_under_a_publication_for_all_tables(
    empty_database_url: str,
) -> None:
    migrate_to(empty_database_url, 5)  # its leaves have none
    migrate(empty_database_url)
    with psycopg.connect(empty_database_url, autocommit=True) as database:
        database.execute("select outbox.make_event_leaf(20), outbox.make_attempt_leaf(20)")
        database.execute("create publication everything for all tables")
        tables = database.execute(
            "select oid::regclass::text from pg_class where relnamespace = 'outbox'::regnamespace"
            " and relkind in ('r', 'p') and relname not in ('audit', 'settings') order by relname"
        ).fetchall()
        assert len(tables) > 30
        for (table,) in tables:
            database.execute(f"delete from {table}")  # refused with 55000 where a table cannot name its rows
        assert database.execute("select * from outbox.without_identity()").fetchall() == []


@pytest.mark.field("F68")
def test_a_table_without_a_replica_identity_is_named_and_mended(
    database_url: str, database: psycopg.Connection[Any]
) -> None:
    database.execute("create publication everything for all tables")
    database.execute("alter table outbox.resolutions replica identity default")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        database.execute("delete from outbox.resolutions")
    code, told = check(database_url)
    assert code == 1
    assert "outbox.resolutions has no replica identity" in told
    migrate(database_url)
    assert check(database_url)[0] == 0


STRANGERS = {
    "a table of ours by name": "create table outbox.events (id int)",
    "a table that is not": "create table outbox.messages (id int)",
    "another tool's table of versions": "create table outbox.schema_migrations (version bigint, dirty boolean)",
    "a view": "create view outbox.deliveries as select 1",
    "a sequence": "create sequence outbox.events_seq",
}


@pytest.mark.field("F26")
@pytest.mark.parametrize("statement", STRANGERS.values(), ids=STRANGERS)
def test_an_applications_own_schema_outbox_is_refused_with_one_line(empty_database_url: str, statement: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as database:
        database.execute("create schema outbox")
        database.execute(statement)
        name = statement.split()[2]
        with pytest.raises(
            SchemaError, match=rf"is not outbox-relay's: it holds {name}.*alter schema outbox rename"
        ) as (refused):
            migrate(empty_database_url)
        assert "\n" not in str(refused.value)
        there = "select count(*) from pg_class where relnamespace = 'outbox'::regnamespace and relkind <> 'i'"
        assert database.execute(there).fetchone() == (1,)
        with engine_on(empty_database_url) as engine, engine.connect() as connection, pytest.raises(SchemaError):
            schema.require_current(connection)
        database.execute("alter schema outbox rename to orders_outbox")
        assert migrate(empty_database_url) == schema.migrations()


@pytest.mark.field("F26")
def test_a_table_named_outbox_in_another_schema_is_in_nobodys_way(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as database:
        database.execute("create table public.outbox (id int, events int)")
        assert migrate(empty_database_url) == schema.migrations()
        database.execute(INSERT)
        assert check(empty_database_url)[0] == 0


def test_a_setting_under_which_events_are_not_sent_is_named(
    database_url: str, database: psycopg.Connection[Any]
) -> None:
    role, name = f"outbox_test_{secrets.token_hex(6)}", database.info.dbname
    database.execute(f"create role {role}")
    try:
        database.execute(f"alter role {role} in database {name} set session_replication_role = replica")
        database.execute(f"alter database {name} set session_replication_role = replica")
        database.execute(f"alter database {name} set work_mem = '8MB'")
        with engine_on(database_url) as engine, engine.connect() as connection:
            found = [one for one in find_in_schema(connection, None) if one.code == "settings.triggers"]
        assert [one.subject for one in found] == [f"database {name}", f"role {role} in database {name}"]
        for one in found:
            database.execute(one.mend.partition(";")[0])
        with engine_on(database_url) as engine, engine.connect() as connection:
            assert [one for one in find_in_schema(connection, None) if one.code == "settings.triggers"] == []
    finally:
        database.execute(f"drop role {role}")
