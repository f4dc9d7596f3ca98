"""The schema `outbox` inside your own Alembic migrations, so that one `alembic upgrade head` makes both.

    import outbox.alembic

    def upgrade() -> None:
        outbox.alembic.upgrade(op, to=45)  # the last number in `relay migrate`; it is never another one later

    def downgrade() -> None:
        outbox.alembic.downgrade(op)

A later outbox-relay may bring migrations: then add a revision with `upgrade(op, since=45, to=46)`. `relay run` says so
where one is missing. It works online, on psycopg or psycopg2, and offline (`alembic upgrade head --sql`). `relay
migrate` keeps the same numbers: neither repeats what the other did.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, text

from outbox._text import brief
from outbox.errors import ArgumentError, SchemaError
from outbox.schema import runner
from outbox.schema.compatibility import known_version
from outbox.schema.settings import ALIKE, NO_ROW_HIDDEN, SETTINGS
from outbox.schema.table_locks import script_to_lock, tables_changed_by

__all__ = ["downgrade", "upgrade"]

_FIRST = 27  # that of the version which this came with
_SETTINGS = (*SETTINGS, "row_security", "lock_timeout", "idle_in_transaction_session_timeout")
# What our files set for their transaction is put back: what follows in it is the application's.
_KEEP = "".join(
    f"select pg_catalog.set_config('outbox.former_{name}', pg_catalog.current_setting('{name}'), true);\n"
    for name in _SETTINGS
)
_PUT_BACK = "".join(
    f"select pg_catalog.set_config('{name}', pg_catalog.current_setting('outbox.former_{name}'), true);\n"
    for name in _SETTINGS
)
_DROP = "set local lock_timeout = '5s';\ndrop schema if exists outbox cascade;\n"


def upgrade(op: Any, *, to: int, since: int = 0) -> None:
    """Bring the schema up to this version, in Alembic's transaction.

    Args:
        op: Alembic's `op`.
        to: the number of the last migration, as a fixed number in your file: 27 or later, no later than this version
            of outbox-relay knows.
        since: the `to` of your revision before, 0 in the first one. Online, what is missing is known; a script has no
            database to ask, and holds what comes after this.

    Raises:
        ArgumentError: `to` or `since` is no such number.
        SchemaError: the server, the driver or the schema does not fit, or the user lacks a right. Nothing is changed
            where the error ends the transaction.
    """
    _check(to, since)
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(f"{_KEEP}{_script(since, to)}{_PUT_BACK}".strip())
        return
    with _kept(op.get_bind()) as connection:
        made = runner.apply(connection, to)
        if made and made[0].version == 1:
            connection.connection.cursor().execute(runner.read_sql("leaves.sql"))


def downgrade(op: Any, *, drop: bool = False) -> None:
    """Refuse to go back; or with `drop`, drop the schema with every event, delivery and subscription in it.

    An older outbox-relay goes on beside a newer schema where that says so. So a revision that is not the first has
    nothing to undo: leave its `downgrade` empty where you have to go back past it. The group roles stay.

    Raises SchemaError without `drop`, or where somebody uses the schema for longer than five seconds.
    """
    if not isinstance(drop, bool):
        raise ArgumentError(f"drop: {brief(drop)} is not True or False")
    if not drop:
        raise SchemaError(
            "the schema outbox does not go back: what was not delivered yet would be lost. An older outbox-relay may"
            " use a newer schema; to drop all of it, events included, call outbox.alembic.downgrade(op, drop=True)"
        )
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(f"{_KEEP}{_DROP}{_PUT_BACK}".strip())
        return
    with _kept(op.get_bind()) as connection:
        connection.connection.cursor().execute(_DROP)


def _check(to: object, since: object) -> None:
    known = known_version()
    if isinstance(to, bool) or not isinstance(to, int) or not _FIRST <= to <= known:
        raise ArgumentError(f"to: {brief(to)} is not a number from {_FIRST} to {known}, which this outbox-relay knows")
    if isinstance(since, bool) or not isinstance(since, int) or not 0 <= since < to:
        raise ArgumentError(f"since: {brief(since)} is not a number from 0 to {to - 1}")


def _script(since: int, to: int) -> str:
    """Return everything after one version up to another as SQL, for the transaction that Alembic writes around it."""
    chosen = [one for one in runner.migrations() if since < one.version <= to]
    parts = [f"-- outbox {one.version:04} {one.name}\n{one.sql}\n{one.record}" for one in chosen]
    first = [runner.SCHEMA_SQL, runner.VERSIONS_SQL] if since == 0 else []
    rights = [runner.read_sql("grants.sql")] if to == known_version() else []
    leaves = [runner.read_sql("leaves.sql")] if since == 0 else []
    names: set[str] = set().union(*(tables_changed_by(one.sql) for one in chosen)) if since else set()
    return "\n".join([ALIKE, NO_ROW_HIDDEN, script_to_lock(names), *first, *parts, *rights, *leaves, ""])


@contextmanager
def _kept(connection: Connection) -> Iterator[Connection]:
    """Yield the connection of a migration, and put its settings back afterwards."""
    if connection.dialect.driver not in ("psycopg", "psycopg_async", "psycopg2"):
        raise SchemaError(
            f"the driver {connection.dialect.driver} cannot run the migrations of the schema outbox: in Alembic's"
            " env.py, connect with postgresql+psycopg://"
        )
    cursor = connection.connection.cursor()
    cursor.execute(_KEEP)
    if not connection.scalar(text("select pg_catalog.current_setting('outbox.former_search_path', true)")):
        raise SchemaError("the connection is in autocommit: migrate in a transaction, as Alembic does by default")
    yield connection
    cursor.execute(_PUT_BACK)
