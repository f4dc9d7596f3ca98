"""Whatever a database or role has set, `migrate` makes the same schema, and `migrate --check` finds it so."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from outbox.schema import comparison
from relay.operations.schema_findings import find_in_schema
from tests.support import databases

SETTINGS = [
    "timezone = 'America/St_Johns'",
    "datestyle = 'German'",
    "intervalstyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "standard_conforming_strings = off",
    "quote_all_identifiers = on",
    "client_encoding = 'LATIN1'",
]


def set_for_all(url: str, setting: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"alter database {make_url(url).database} {setting}")


def differences(url: str) -> list[str]:
    """All that `migrate --check` and `relay status` would say."""
    with databases.engine_on(url) as engine, engine.connect() as connection:
        found = [*comparison.differences(connection), *comparison.findings(connection)]
        return [*found, *(finding.seen for finding in find_in_schema(connection, None))]


@pytest.mark.parametrize("setting", SETTINGS)
def test_migrating_under_any_setting_makes_the_same_schema(empty_database_url: str, setting: str) -> None:
    set_for_all(empty_database_url, f"set {setting}")
    databases.migrate(empty_database_url)
    set_for_all(empty_database_url, "reset all")
    assert differences(empty_database_url) == []


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_check_gives_no_false_alarm_under_any_setting(database_url: str, setting: str) -> None:
    set_for_all(database_url, f"set {setting}")
    assert differences(database_url) == []


def test_the_transaction_of_a_check_keeps_its_settings(database_url: str) -> None:
    with databases.engine_on(database_url) as engine, engine.begin() as connection:
        connection.execute(sa.text("set local datestyle = 'German'"))
        comparison.differences(connection)
        assert connection.scalar(sa.text("show datestyle")) == "German, DMY"
