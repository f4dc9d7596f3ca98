"""A schema that a newer version migrated: code that it allows goes on, other code says what is to be done."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest
import sqlalchemy as sa

import outbox
from outbox.errors import SchemaError
from outbox.schema import comparison, compatibility
from outbox.schema import runner as schema
from relay.config.options import Config
from relay.operations.connection import Database
from tests.support import databases

pytestmark = pytest.mark.field("F72")

KNOWN = compatibility.known_version()
NOTE = "insert into outbox.schema_migrations (version, name, checksum, least_code) values"


def note(url: str, *migrations: tuple[int, int | None]) -> None:
    """Note migrations of newer versions, each with its least_code, as `relay migrate` of those would."""
    with psycopg.connect(url) as connection:
        for version, least in migrations:
            connection.execute(f"{NOTE} (%s, 'later', '', %s)", (version, least))


def test_the_newest_file_is_the_known_version() -> None:
    assert schema.migrations()[-1].version == KNOWN


@pytest.mark.parametrize(
    ("newer", "least"),
    [
        ([], None),
        ([(31, 26)], None),
        ([(30, 4), (31, 26)], None),
        ([(31, None)], 31),
        ([(31, 27)], 27),
        ([(30, 30), (31, 26)], 30),  # a later one that allows more takes back nothing
    ],
)
def test_the_strictest_migration_says_which_code_may_go_on(
    newer: list[tuple[int, int | None]], least: int | None
) -> None:
    reason = compatibility.refusal(newer, 26)
    if least is None:
        assert reason is None
    else:
        assert reason == (
            f"the outbox schema is at version 31, newer than 26, which this outbox-relay {outbox.__version__} knows,"
            f" and only code that knows version {least} may use it: upgrade outbox-relay"
        )


def test_a_migration_says_in_a_line_of_its_own_which_code_may_go_on(database_url: str, monkeypatch) -> None:
    later = [
        schema.Migration(KNOWN + 1, "compatible", f"-- Adds nothing.\n-- least code: {KNOWN}\nselect 1;\n"),
        schema.Migration(KNOWN + 2, "breaking", "-- Says nothing of least code: 3.\nselect 1;\n"),
    ]
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: [*known, *later])
    assert databases.migrate(database_url) == later
    with psycopg.connect(database_url) as connection:
        noted = connection.execute(f"select least_code from outbox.schema_migrations where version > {KNOWN}")
        assert noted.fetchall() == [(KNOWN,), (None,)]


def test_code_that_the_newer_schema_allows_goes_on_and_touches_nothing(database_url: str, engine: sa.Engine) -> None:
    note(database_url, (KNOWN + 5, KNOWN))
    with engine.connect() as connection:
        schema.require_current(connection)
        connection.rollback()
        connection.execute(sa.text("grant select on outbox.secrets to outbox_reader"))  # as a newer version may
        connection.commit()
        assert schema.migrate(connection) == []
        granted = sa.text("select has_table_privilege('outbox_reader', 'outbox.secrets', 'select')")
        assert connection.scalar(granted), "the rights are the newer version's"
        with pytest.raises(SchemaError, match=rf"version {KNOWN + 5}, newer than {KNOWN}: .* cannot check it"):
            comparison.differences(connection)


def test_code_that_the_newer_schema_does_not_allow_says_both_versions_and_the_mend(
    database_url: str, engine: sa.Engine
) -> None:
    note(database_url, (KNOWN + 5, KNOWN), (KNOWN + 6, KNOWN + 6))
    words = rf"^the outbox schema is at version {KNOWN + 6}, newer than {KNOWN}, .* version {KNOWN + 6} .*: upgrade"
    with engine.connect() as connection:
        for ask in (schema.require_current, schema.migrate, comparison.differences):
            with pytest.raises(SchemaError, match=words) as refused:
                ask(connection)
            assert "\n" not in str(refused.value)
            connection.rollback()


def test_a_server_notices_a_migration_that_is_for_newer_code(database_url: str) -> None:
    database = Database(Config(database_url=database_url), check_again_seconds=0.0)
    with database.transaction() as connection:
        connection.execute(sa.text("select 1"))
    note(database_url, (KNOWN + 1, None))
    with pytest.raises(SchemaError, match="upgrade outbox-relay"), database.transaction():
        raise AssertionError("yielded a connection to a schema that is for newer code")


def test_migrate_of_an_older_version_that_may_go_on_is_no_failure(database_url: str) -> None:
    note(database_url, (KNOWN + 1, KNOWN))
    ended = subprocess.run(
        [sys.executable, "-m", "relay", "migrate"],
        env=os.environ | {"RELAY_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "the schema is newer than this version, which may use it: nothing was done\n"
