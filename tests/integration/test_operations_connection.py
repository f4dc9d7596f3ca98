"""A database is checked against the schema with its first connection, and no connection is kept."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

import outbox
from relay.config.options import Config
from relay.operations import connection as connections
from relay.operations.connection import Database


@pytest.fixture
def checks(monkeypatch) -> list[sa.Connection]:
    """The connections that were checked so far."""
    found: list[sa.Connection] = []
    check = connections.require_current

    def noted(connection: sa.Connection) -> None:
        found.append(connection)
        check(connection)

    monkeypatch.setattr(connections, "require_current", noted)
    return found


def test_the_schema_is_checked_once_however_many_connections_follow(database_url, checks) -> None:
    database = Database(Config(database_url=database_url))
    for _ in range(3):
        with database.transaction() as connection:
            connection.execute(sa.text("select 1"))
        with database.connect() as connection:
            assert not connection.in_transaction()
    assert len(checks) == 1


def test_a_schema_that_does_not_fit_is_refused_until_it_does(empty_database_url, checks) -> None:
    database = Database(Config(database_url=empty_database_url))
    for open_one in (database.transaction, database.connect):
        with pytest.raises(outbox.SchemaError, match="relay migrate"), open_one():
            raise AssertionError("yielded an unchecked connection")
    assert len(checks) == 2


def test_who_acts_is_named_for_a_transaction_or_for_all(database_url) -> None:
    actor = sa.text("select outbox.actor()")
    database = Database(Config(database_url=database_url), actor="alice")
    with database.transaction() as own, database.transaction(actor="bob") as other:
        assert (own.scalar(actor), other.scalar(actor)) == ("alice", "bob")
    with Database(Config(database_url=database_url)).transaction() as nobodys:
        assert nobodys.scalar(actor) == ""
