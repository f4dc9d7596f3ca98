"""What fields.py declares of a column is what the database has: type, default, check, and how it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects import postgresql

from outbox import subscriptions
from outbox.ids import parse_id
from outbox.subscriptions.declaration import REQUIRED, Field
from outbox.subscriptions.fields import COLUMNS
from relay.cli import cli
from relay.model.subscription import SUBSCRIPTION_COLUMNS
from relay.store.subscriptions import SUBSCRIPTIONS, subscription_of
from tests.support import seeding

# What no caller sets by name: the relay's, the database's, or a verb's of its own.
OTHER_COLUMNS = {
    *("id", "tenant", "scheme", "version", "created_at", "updated_at", "filter_hash"),
    *("paused_at", "disabled_at", "disabled_reason", "held_until", "removed_at", "sorting_since"),
    "drops_while_paused",
    "managed_by",
    "shown_url",
}
OTHER_CHECKS = {
    "tenant_is_text",
    "scheme_is_a_word",
    "managed_by_is_a_word",
    "disabled_with_a_reason",
    "times_are_dates",
    "sorting_since_is_a_date",
    "batches_have_no_order",
}

# Of each column: what its flag is given, and what is kept of it. None of them is the default.
GIVEN: dict[str, tuple[str, Any]] = {
    "url": ("https://example.com/other", "https://example.com/other"),
    "types": ("a.b,c.*", ["a.b", "c.*"]),
    "name": ("billing-crm", "billing-crm"),
    "description": ("theirs", "theirs"),
    "metadata": ("owner=7", {"owner": "7"}),
    "timeout_seconds": ("3", 3),
    "schedule_seconds": ("1,2", [1, 2]),
    "final_statuses": ("422,404", [404, 422]),
    "filter": ('{"payload":{"total":{"$gte":99.5}}}', {"payload": {"total": {"$gte": 99.5}}}),
    "format": ("cloudevents", "cloudevents"),
    "format_settings": ("source=/shop", {"source": "/shop"}),
    "transformation": ("{id:data.id}", "{id:data.id}"),
    "rate_limit": ("20/s", "20/s"),
    "rate_burst": ("5", 5),
    "max_in_flight": ("4", 4),
    "batch_events": ("50", 50),
    "batch_milliseconds": ("20", 20),
    "ordered": ("true", True),
    "order_policy": ("skip", "skip"),
    "recovery_seconds": ("3600", 3600),
}
ALONG_WITH = {"format_settings": ("--format", "cloudevents")}  # what a column cannot be given without
each_column = pytest.mark.parametrize("field", COLUMNS, ids=lambda field: field.name)


@pytest.fixture
def connection(engine: Engine) -> Any:
    with engine.connect() as connection:
        yield connection


def described(connection: Connection, table: str) -> dict[str, tuple[str, bool]]:
    """Type of each column of a table, and whether it may not be null."""
    rows = connection.execute(
        text("""select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute
                where attrelid = cast(:table as regclass) and attnum > 0 and not attisdropped"""),
        {"table": table},
    )
    return {name: (kind, required) for name, kind, required in rows}


def checks(connection: Connection, table: str) -> dict[str, str]:
    """Name of each CHECK of a table, and its condition as the server spells it."""
    statement = """select conname, pg_get_constraintdef(oid) from pg_constraint
                   where conrelid = cast(:table as regclass) and contype = 'c'"""
    return dict(connection.execute(text(statement), {"table": table}).all())


def make_declared(connection: Connection) -> None:
    """Make a table of the declarations alone."""
    lines = []
    for field in COLUMNS:
        kind = field.column.compile(dialect=postgresql.dialect())
        lines.append(f"{field.name} {kind}" + ("" if field.default is None else " not null"))
        lines += [f"check ({field.constraint})"] if field.constraint else []
    connection.exec_driver_sql(f"create temporary table declared ({', '.join(lines)})".replace("%", "%%"))


def test_every_column_is_declared_or_named_here(connection: Connection) -> None:
    make_declared(connection)
    declared, there = described(connection, "declared"), described(connection, "outbox.subscriptions")
    assert there.keys() - declared.keys() == OTHER_COLUMNS
    assert {name: there[name] for name in declared} == declared


def test_every_check_is_declared_or_named_here(connection: Connection) -> None:
    make_declared(connection)
    there = checks(connection, "outbox.subscriptions")
    of_fields = [condition for name, condition in there.items() if name not in OTHER_CHECKS]
    assert sorted(of_fields) == sorted(checks(connection, "declared").values())
    assert set(there) >= OTHER_CHECKS


def test_a_plain_insert_stores_the_declared_defaults(connection: Connection) -> None:
    insert = "insert into outbox.subscriptions (url, types) values ('https://example.com/', '{a}') returning id"
    found = subscriptions.get(connection, str(connection.execute(text(insert)).scalar_one()))
    optional = {field.name: field.default for field in COLUMNS if field.default is not REQUIRED}
    assert {name: getattr(found, name) for name in optional} == optional
    made = subscriptions.add(connection, "https://example.com/", ["a"])
    assert {name: getattr(made, name) for name in optional} == optional


@each_column
def test_what_a_flag_gives_is_stored_shown_and_printed_as_json(database_url: str, engine: Engine, field: Field) -> None:
    given, kept = GIVEN[field.name]

    def run(*arguments: str) -> str:
        ended = CliRunner().invoke(cli, ["subscriptions", *arguments], env={"RELAY_DATABASE_URL": database_url})
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    with engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="acme")  # a name is taken within its tenant only
    flag = "--" + field.flags[0].name.replace("_", "-")
    others = ALONG_WITH.get(field.name, ())
    assert json.loads(run("update", name, flag, given, *others, "--json"))[field.name] == kept
    if field.default is not REQUIRED:
        made = json.loads(run("add", "https://example.com/", "*", flag, given, *others, "--json"))
        assert made[field.name] == kept
    (shown,) = (line.split()[1] for line in run("show", name).splitlines() if line.split()[0] == field.name)
    assert sorted(shown.split(",")) == sorted(given.split(","))


def test_a_relay_reads_what_was_stored(connection: Connection) -> None:
    told = {"timeout_seconds": 3, "schedule_seconds": [1, 2], "final_statuses": [404, 422]}
    made = subscriptions.add(connection, "https://example.com/", ["a"], **told)
    uuid = parse_id("sub", made.id)
    (row,) = connection.exec_driver_sql(SUBSCRIPTIONS, ([uuid],)).all()
    sent_by = subscription_of((uuid.bytes, *row[1:]))
    shared = set(SUBSCRIPTION_COLUMNS) - {"id", "version"}
    assert shared <= {*(field.name for field in COLUMNS), "scheme", "tenant"}
    assert {name: getattr(sent_by, name) for name in shared} == {name: getattr(made, name) for name in shared}
    assert [kind for kind, _ in sent_by.secrets] == ["signing"]
