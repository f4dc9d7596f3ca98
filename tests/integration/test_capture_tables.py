"""Triggers of `relay capture install`: what anybody does to a table is recorded, whatever its names and types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

import outbox
from outbox import schema
from relay.cli import cli
from relay.operations.table_captures import TableCapture, capture_sql, install_capture, list_captures, remove_capture
from tests.support import databases, dumps
from tests.support.property_checks import BESIDE_FIXTURES

ODD = 'Odd "table\'s" name %s :x'


@pytest.fixture(scope="module")
def module_url(server_url, migrated_template) -> Iterator[str]:
    with databases.database(server_url, template=migrated_template) as url:
        yield url


@pytest.fixture
def engine(module_url) -> Iterator[sqlalchemy.Engine]:
    with databases.engine_on(module_url) as engine:
        yield engine


@pytest.fixture
def connection(module_url) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database with a table of leads and no events; a test leaves nothing there."""
    with psycopg.connect(module_url, autocommit=True) as connection:
        connection.execute("create schema shop; set search_path = shop, public")
        connection.execute("""
            create table shop.leads (id integer generated always as identity primary key, name text, status text,
                                     owner text not null default 'acme', score numeric)""")
        yield connection
        connection.execute("drop schema shop cascade; delete from outbox.events; delete from outbox.pending")


@pytest.fixture
def capture(engine):
    def capture(table="shop.leads", **asked):
        with engine.begin() as connection:
            return install_capture(connection, None, TableCapture(table=table, **asked))

    return capture


def recorded(connection) -> list[tuple[str, str, Any, str]]:
    rows = connection.execute("select type, key, payload, tenant from outbox.events order by seq").fetchall()
    connection.execute("delete from outbox.events; delete from outbox.pending")
    return [(type_, key, json.loads(payload), tenant) for type_, key, payload, tenant in rows]


ODD_TABLE = """create table {} (
    k uuid, {} mood, primary key (k, {}), at timestamp default '2026-01-02 03:04',
    tz timestamptz default '2026-01-02 03:04+02', raw bytea default '\\x00ff', many int[] default '{{1,2}}',
    span int4range default '[1,3)', doc json default '{{"b": 1, "a": 2}}', shape point default '(1,2)',
    two pair default '(1,x)', x xml, nan numeric default 'NaN', twice text generated always as (({})::text) stored)"""
ALL = {"created": "lead.made", "updated": "lead.changed", "deleted": "lead.gone"}
ANN = {"id": 1, "name": "Ann", "status": "new", "owner": "acme", "score": None}


def test_rows_are_recorded_with_their_values(connection, capture):
    capture(**ALL)
    connection.execute("insert into leads (name, status) values ('Ann', 'new')")
    connection.execute("update leads set name = 'Ann'")
    connection.execute("update leads set score = 19.90")
    connection.execute("update leads set score = 19.90")
    connection.execute("delete from leads")
    scored = ANN | {"score": 19.9}
    assert recorded(connection) == [
        ("lead.made", "1", ANN, ""),
        ("lead.changed", "1", scored, ""),
        ("lead.gone", "1", scored, ""),
    ]


def test_the_data_keeps_digits_and_the_order_of_columns(connection, capture):
    capture(**ALL)
    connection.execute("insert into leads (name, score) values ('Ann', 19.90)")
    (payload,) = connection.execute("select payload from outbox.events").fetchone()
    assert payload == '{"id":1,"name":"Ann","status":null,"owner":"acme","score":19.90}'


def test_became_key_tenant_and_columns(connection, capture):
    capture(
        updated="lead.changed",
        became={"status": {"qualified": "lead.qualified", "lost": "lead.lost"}, "score": {"7": "lead.lucky"}},
        key=("name", "id"),
        tenant_column="owner",
        columns=("status", "id"),
    )
    connection.execute("insert into leads (name, status) values ('Ann', 'qualified')")
    connection.execute("update leads set name = 'Eve'")
    connection.execute("update leads set status = 'x', owner = 'eve'")
    connection.execute("update leads set status = 'qualified', score = 7")
    assert recorded(connection) == [
        ("lead.qualified", "Ann,1", {"id": 1, "status": "qualified"}, "acme"),
        ("lead.changed", "Eve,1", {"id": 1, "status": "x"}, "eve"),
        ("lead.changed", "Eve,1", {"id": 1, "status": "qualified"}, "eve"),
        ("lead.qualified", "Eve,1", {"id": 1, "status": "qualified"}, "eve"),
        ("lead.lucky", "Eve,1", {"id": 1, "status": "qualified"}, "eve"),
    ]


def test_many_rows_copy_upserts_and_rolled_back_savepoints(connection, capture):
    capture(**ALL)
    connection.execute("insert into leads (name) select 'n' from generate_series(1, 3)")
    with connection.cursor().copy("copy leads (name) from stdin") as copy:
        copy.write_row(["copied"])
    connection.execute(
        "insert into leads (id, name) overriding system value values (1, 'x'), (9, 'y')"
        " on conflict (id) do update set name = 'up'"
    )
    with connection.transaction():
        with connection.transaction(force_rollback=True):
            connection.execute("update leads set name = 'undone'")
        connection.execute("delete from leads where id = 2")
    assert [(one[0], one[2]["id"], one[2]["name"]) for one in recorded(connection)] == [
        *(("lead.made", number, "n") for number in (1, 2, 3)),
        ("lead.made", 4, "copied"),
        ("lead.changed", 1, "up"),
        ("lead.made", 9, "y"),
        ("lead.gone", 2, "n"),
    ]


@pytest.mark.parametrize("columns", [(), ("id", "doc")])
@pytest.mark.parametrize(
    "odd",
    [r'{"a": "\u0000"}', r'{"a": "\\\u0000\\u0000"}', r'["\ud800"]', "[1e999999]"],
    ids=["nul", "nuls", "half", "huge"],
)
def test_json_that_jsonb_does_not_take_harms_no_writer(odd, columns, connection, capture):
    """It is recorded as it was written, and told only where it changed."""
    connection.execute("create table documents (id uuid primary key, done boolean, docs json[], note text, doc json)")
    connection.execute("alter table documents drop column note")
    columns = {"columns": columns} if columns else {}
    capture("shop.documents", **ALL, became={"done": {"true": "lead.done"}}, **columns)
    key = "00000000-0000-0000-0000-000000000001"
    connection.execute("insert into documents values (%s, true, array[%s::json], %s)", (key, odd, odd))
    connection.execute("update documents set doc = %s", (odd,))
    connection.execute("update documents set doc = '{}'")
    connection.execute("update documents set doc = %s", (odd,))
    connection.execute("delete from documents")
    rows = connection.execute("select type, key, replace(payload, ' : ', ':') from outbox.events order by seq")
    told = [(type_, named, f'"doc":{odd}' in payload) for type_, named, payload in rows]
    assert told == [
        ("lead.made", key, True), ("lead.done", key, True), ("lead.changed", key, False), ("lead.changed", key, True),
        ("lead.gone", key, True),
    ]  # fmt: skip


def test_where_all_columns_that_were_named_are_gone_the_data_is_empty(connection, capture):
    connection.execute("create table documents (id integer primary key, note text, doc json)")
    capture("shop.documents", created="lead.made", columns=("note",))
    connection.execute("alter table documents drop column note")
    connection.execute("insert into documents values (1, '{}'), (2, %s)", [r'{"a": "\u0000"}'])
    assert [(key, data) for _, key, data, _ in recorded(connection)] == [("1", {}), ("2", {})]


def test_odd_names_types_and_generated_columns(connection, capture):
    table, column = sql.Identifier(ODD), sql.Identifier('a "b" c')
    connection.execute("create type mood as enum ('it''s fine', 'bad'); create type pair as (a integer, b text)")
    connection.execute(sql.SQL(ODD_TABLE).format(table, column, column, sql.SQL("'7'")))
    name = table.as_string(connection)
    capture(f"shop.{name}", created="odd.made", became={'a "b" c': {"it's fine": "odd.fine"}}, name='Odd "trigger" %s')
    connection.execute(sql.SQL("insert into {} (k, {}) values (gen_random_uuid(), 'it''s fine')").format(table, column))
    made, fine = recorded(connection)
    assert (made[0], fine[0], made[1][36:]) == ("odd.made", "odd.fine", ",it's fine")
    assert made[2].pop("k") == made[1][:36]
    assert made[2] == {
        'a "b" c': "it's fine", "at": "2026-01-02T03:04:00", "tz": "2026-01-02T01:04:00+00:00", "raw": "\\x00ff",
        "many": [1, 2], "span": "[1,3)", "doc": {"b": 1, "a": 2}, "shape": "(1,2)", "two": {"a": 1, "b": "x"},
        "x": None, "nan": "NaN", "twice": "7",
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("update {} set shape = '(3,4)'").format(table))
    assert recorded(connection) == []  # no type for updates


def test_what_is_told_and_written_does_not_hang_on_the_writers_settings(connection, capture):
    connection.execute("""
        create table measures (id integer primary key, at timestamptz, size float8, small float4, lasts interval,
                               raw bytea);
        set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set extra_float_digits = -15;
        set intervalstyle = 'sql_standard'; set bytea_output = 'escape'""")
    capture("shop.measures", **ALL)
    connection.execute(
        "insert into measures values (1, '2026-01-02 03:04Z', 0.3, 0.1, '1 mon 2 days 3 hours', '\\x00ff')"
    )
    connection.execute("update measures set size = 0.1::float8 + 0.2::float8")
    connection.execute("update measures set small = 0.10000001")
    made, changed, small = (row[2] for row in recorded(connection))
    assert made == {
        "id": 1, "at": "2026-01-02T03:04:00+00:00", "size": 0.3, "small": 0.1, "lasts": "1 mon 2 days 03:00:00",
        "raw": "\\x00ff",
    }  # fmt: skip
    assert changed == made | {"size": 0.1 + 0.2}
    assert small == changed | {"small": 0.10000001}


@pytest.fixture
def priced(connection):
    """A table with a virtual generated column; PostgreSQL has them since 18."""
    if connection.info.server_version < 180_000:
        pytest.skip("no virtual columns here")
    connection.execute("""
        create table priced (id integer primary key, cents integer, note json,
                             twice integer generated always as (cents * 2) virtual,
                             kept integer generated always as (cents * 3) stored not null, owner text)""")


@pytest.mark.parametrize("note", ["null", r'{"a": "\u0000"}'], ids=["plain", "odd"])
def test_a_virtual_column_is_left_out_and_its_changes_are_its_sources(note, connection, capture, priced):
    capture("shop.priced", **ALL, became={"kept": {"6": "lead.six"}})
    connection.execute("insert into priced values (1, 1, %s)", [note])
    connection.execute("update priced set cents = 2, owner = 'acme'")
    connection.execute("delete from priced")
    rows = recorded(connection)
    assert [(type_, data["cents"], data["kept"]) for type_, _, data, _ in rows] == [
        ("lead.made", 1, 3), ("lead.changed", 2, 6), ("lead.six", 2, 6), ("lead.gone", 2, 6),
    ]  # fmt: skip
    assert {tuple(data) for _, _, data, _ in rows} == {("id", "cents", "note", "kept", "owner")}


@pytest.mark.parametrize(
    "asked",
    [
        {"created": "lead.made", "key": ("id", "twice")},
        {"created": "lead.made", "tenant_column": "twice"},
        {"created": "lead.made", "columns": ("twice",)},
        {"became": {"twice": {"10": "lead.ten"}}},
    ],
    ids=["key", "tenant", "columns", "became"],
)
def test_a_virtual_column_that_a_trigger_would_have_to_read_is_refused(asked, capture, priced):
    with pytest.raises(outbox.CaptureError, match=r"^shop\.priced: column 'twice' is generated and virtual"):
        capture("shop.priced", **asked)


def test_a_tenant_or_key_that_became_virtual_is_an_error_and_columns_go_without(connection, capture, priced):
    capture("shop.priced", created="lead.made", columns=("id", "cents", "owner"))
    capture("shop.priced", created="lead.owned", tenant_column="kept", name="owned")
    connection.execute("alter table priced drop owner, add owner text generated always as ('o' || cents) virtual")
    connection.execute("insert into priced values (1, 1)")
    assert {"id": 1, "cents": 1} in [data for _, _, data, _ in recorded(connection)]
    connection.execute("alter table priced drop kept, add kept text generated always as ('o' || cents) virtual")
    with pytest.raises(psycopg.errors.UndefinedColumn, match="a column of its key or tenant is gone or virtual"):
        connection.execute("insert into priced values (2, 1)")


@pytest.mark.parametrize("hostile", ["'); drop table leads; --", "a\\'b", "$$ :x %s %%", "\u202e'"])
def test_what_is_asked_for_is_data_and_never_sql(hostile, connection, capture):
    capture(became={"status": {hostile: "lead.hostile"}}, name=hostile)
    connection.execute("insert into leads (name, status) values ('Ann', %s)", [hostile])
    assert [one[0] for one in recorded(connection)] == ["lead.hostile"]
    connection.execute(sql.SQL("drop trigger {} on leads").format(sql.Identifier(hostile)))


def test_partitions_those_made_later_too(connection, capture):
    connection.execute("""
        create table parts (id integer, day integer, note text, primary key (id, day)) partition by range (day);
        create table parts_1 partition of parts for values from (1) to (2)""")
    capture("shop.parts", **ALL)
    connection.execute("create table parts_2 partition of parts for values from (2) to (3)")
    connection.execute("insert into parts values (1, 1); insert into parts_2 values (2, 2)")
    connection.execute("update parts set note = 'x'")
    connection.execute("update parts set day = 2 where id = 1")
    assert [one[:2] for one in recorded(connection)] == [
        ("lead.made", "1,1"), ("lead.made", "2,2"), ("lead.changed", "1,1"), ("lead.changed", "2,2"),
        ("lead.gone", "1,1"), ("lead.made", "1,2"),
    ]  # fmt: skip


def test_whoever_writes_needs_only_to_record(connection, capture):
    capture(**ALL, became={"status": {"q": "lead.q"}}, tenant_column="owner")
    writer = f"writer_{connection.info.dbname}"
    connection.execute(
        sql.SQL("create role {0}; grant usage on schema shop to {0}; grant all on leads to {0}").format(
            sql.Identifier(writer)
        )
    )
    try:
        connection.execute(sql.SQL("set role {}").format(sql.Identifier(writer)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("insert into leads (name) values ('Ann')")
        connection.execute("reset role")
        connection.execute(sql.SQL("grant outbox_app to {0}; set role {0}").format(sql.Identifier(writer)))
        connection.execute(
            "insert into leads (name, status) values ('Ann', 'q'); update leads set name = 'Eve'; delete from leads"
        )
    finally:
        connection.execute(sql.SQL("reset role; drop owned by {0}; drop role {0}").format(sql.Identifier(writer)))
    assert [one[0] for one in recorded(connection)] == ["lead.made", "lead.q", "lead.changed", "lead.gone"]


def test_a_dropped_column_of_key_or_tenant_is_an_error_and_never_another_tenants_event(connection, capture):
    capture(**ALL, tenant_column="owner")
    connection.execute("alter table leads drop column owner")
    with pytest.raises(
        psycopg.errors.UndefinedColumn, match=r"captures shop\.leads: a column of its key or tenant is gone"
    ):
        connection.execute("insert into leads (name) values ('Ann')")


def test_a_row_without_a_tenant_is_an_error_that_names_the_column(connection, capture):
    capture(**ALL, tenant_column="owner")
    connection.execute("insert into leads (name) values ('Ann'); alter table leads alter owner drop not null")
    says = r"trigger outbox_capture captures shop\.leads: its tenant column owner is null"
    for statement in ("insert into leads (owner) values (null)", "update leads set owner = null"):
        with pytest.raises(psycopg.errors.NotNullViolation, match=says):
            connection.execute(statement)
    assert [(one[0], one[3]) for one in recorded(connection)] == [("lead.made", "acme")]


def test_it_survives_dump_and_restore_and_is_nothing_that_migrate_finds(
    connection, capture, engine, module_url, server_url
):
    capture(**ALL, became={"status": {"it's \\ %s": "lead.odd"}})
    with engine.connect() as other:
        assert schema.findings(other) == []
    archive = dumps.dump(module_url)
    with databases.database(server_url) as url:
        dumps.restore(archive, url)
        with psycopg.connect(url, autocommit=True) as restored:
            restored.execute("insert into shop.leads (status) values (%s)", ["it's \\ %s"])
            assert [one[0] for one in recorded(restored)] == ["lead.made", "lead.odd"]
        with databases.engine_on(url) as restored_engine, restored_engine.connect() as other:
            assert schema.differences(other) == []


def test_it_is_listed_replaced_and_removed(connection, capture, engine):
    capture(**ALL, columns=("id",))
    capture(created="lead.made")
    capture(
        deleted="lead.gone", became={"status": {"q": "lead.q"}}, name="second", tenant_column="owner", key=("name",)
    )
    connection.execute(
        "create trigger other before insert on leads for each row execute function suppress_redundant_updates_trigger()"
    )
    with engine.begin() as other:
        first, second = list_captures(other, None)
        assert first == TableCapture(table="shop.leads", created="lead.made", key=("id",))
        assert second == TableCapture(
            table="shop.leads", deleted="lead.gone", became={"status": {"q": "lead.q"}}, key=("name",), name="second",
            tenant_column="owner",
        )  # fmt: skip
        assert not remove_capture(other, None, "shop.leads", "other")
        assert remove_capture(other, None, "shop.leads")
        assert list_captures(other, None).items == (second,)


def test_the_list_goes_on_from_page_to_page(connection, capture, engine):
    connection.execute('create table shop."Zoo" (id int primary key); create table shop.a (id int primary key)')
    for table, name in (("a", "b"), ("a", "B"), ('"Zoo"', "outbox_capture"), ("leads", "outbox_capture")):
        capture(table=f"shop.{table}", created="lead.made", name=name)
    found, after = [], None
    with engine.begin() as other:
        while not found or after is not None:
            page = list_captures(other, None, after=after, limit=1)
            found += [(one.table, one.name) for one in page]
            after = page.next
        with pytest.raises(outbox.FilterError, match=r"^after: is no cursor of this list"):
            list_captures(other, None, after="x")
    assert found == [
        ('shop."Zoo"', "outbox_capture"), ("shop.a", "B"), ("shop.a", "b"), ("shop.leads", "outbox_capture"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "nothing would be recorded"),
        ({"created": "a b"}, "created: 'a b' is not dotted words"),
        ({"became": {"status": {"x": "relay.y"}}}, "became: status=x: 'relay.y' begins with relay."),
        ({"created": "a.b", "table": "shop.nothing"}, "table: there is no shop.nothing"),
        ({"created": "a.b", "table": "a.b.c.d.e"}, "table: 'a.b.c.d.e' is no name of a table"),
        ({"created": "a.b", "table": "x\0y"}, "table: has a NUL"),
        ({"created": "a.b", "table": "outbox.events"}, "table: outbox.events is not the application's"),
        ({"created": "a.b", "table": "shop.seen"}, "table: shop.seen is a view"),
        ({"created": "a.b", "table": "shop.keyless"}, "key: shop.keyless has no primary key"),
        ({"created": "a.b", "key": ("x",)}, "shop.leads has no column 'x'; it has id, name"),
        ({"created": "a.b", "tenant_column": "x"}, "shop.leads has no column 'x'"),
        ({"created": "a.b", "tenant_column": "name"}, "tenant_column: 'name' of shop.leads may be null"),
        ({"created": "a.b", "columns": ("id", "x")}, "shop.leads has no column 'x'"),
        ({"created": "a.b", "name": "n" * 64}, "name: is 64 bytes, at most 63"),
        ({"created": "a.b", "name": ""}, "name: is empty"),
    ],
)
def test_a_wrong_argument_is_named(asked, says, connection, engine):
    connection.execute("create view seen as select 1 as id; create table keyless (a integer)")
    with engine.begin() as other, pytest.raises(outbox.CaptureError, match=f"^{says}"):
        capture_sql(other, None, TableCapture(**({"table": "shop.leads"} | asked)))


def test_the_commands(connection, module_url, monkeypatch):
    def run(*words, code=0):
        ended = CliRunner().invoke(cli, ["capture", *words], env={"RELAY_DATABASE_URL": module_url})
        assert ended.exit_code == code, ended.output
        return ended.stdout

    asked = ["shop.leads", "--created", "lead.made", "--became", "status=a=b:c:lead.ab", "--columns", "id, name"]
    printed = run("install", *asked, "--sql")
    assert run("list", "--json") == ""
    connection.execute(printed)
    assert (
        run("install", *asked, "--key", "name", "--key", "id")
        == "captured: shop.leads, by the trigger outbox_capture\n"
    )
    listed = json.loads(run("list", "--json"))
    assert (listed["became"], listed["key"], listed["columns"]) == (
        {"status": {"a=b:c": "lead.ab"}},
        ["name", "id"],
        ["id", "name"],
    )
    assert "lead.made, lead.ab" in run("list")
    run("install", "shop.leads", "--created", "lead.made", "--name", "second")
    ended = CliRunner().invoke(cli, ["capture", "list", "--limit", "1"], env={"RELAY_DATABASE_URL": module_url})
    cursor = ended.stderr.removeprefix("there are more: --after ").strip()
    assert "second" in run("list", "--limit", "1", "--after", cursor)
    run("remove", "shop.leads", "--name", "second", "--yes")
    connection.execute("alter table leads disable trigger outbox_capture")
    assert "(disabled)" in run("list")
    run("install", "shop.leads", "--became", "status", code=2)
    assert run("remove", "shop.leads", "--yes").startswith("removed: shop.leads")
    run("remove", "shop.leads", "--yes", code=1)


NAMES = ("insert", "update", "update", "delete", "move", "savepoint", "undo", "release", "commit")
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5)), min_size=5, max_size=25)
STATEMENTS = {
    "insert": "insert into seats select n, 'new' from generate_series(%(n)s::int, %(n)s + 2) n"
    " on conflict (number) do update set guest = 'again'",
    "update": "update seats set guest = (number / 2)::text where number >= %(n)s",
    "delete": "delete from seats where number %% 3 = %(n)s %% 3",
    "move": "update seats set number = number + 10 where number = %(n)s"
    " and not exists (select from seats where number = %(n)s + 10)",
}


@given(steps=STEPS)
@settings(max_examples=40, suppress_health_check=BESIDE_FIXTURES)
def test_what_was_captured_replayed_is_the_table(steps, connection, capture):
    connection.execute("drop table if exists seats; create table seats (number integer primary key, guest text)")
    connection.execute("delete from outbox.events; delete from outbox.pending")
    capture("shop.seats", created="made", updated="changed", deleted="gone")
    connection.execute("begin")
    open_ = 0
    for name, number in steps:
        if name == "savepoint":
            open_ += 1
            connection.execute(f"savepoint s{open_}".encode())
        elif name in ("undo", "release") and open_:
            connection.execute(f"{'rollback to' if name == 'undo' else 'release'} s{open_}".encode())
            open_ -= name == "release"
        elif name == "commit":
            open_ = 0
            connection.execute("commit; begin")
        elif name in STATEMENTS:
            connection.execute(STATEMENTS[name], {"n": number})
    connection.execute("commit")
    table: dict[int, Any] = {}
    for kind, key, data, _ in recorded(connection):
        number = data["number"]
        assert key == str(number)
        if kind == "changed" and number not in table:  # a changed key is told as the new one
            del table[number - 10]
        elif kind != "made":
            assert table.pop(number) != data["guest"] or kind == "gone"
        if kind != "gone":
            assert number not in table
            table[number] = data["guest"]
    assert table == dict(connection.execute("select number, guest from seats").fetchall())
