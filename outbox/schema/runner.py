"""Apply the database schema, which is numbered plain SQL files, and refuse one that this version may not use.

Alembic is not used: the SQL files stay the one truth, `import outbox` needs no Alembic, and a user's own keeps its
version table to itself. Each `migrate` also runs `grants.sql` and `leaves.sql` again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

from outbox._row_security import is_row_security, mend_row_security
from outbox.errors import SchemaError
from outbox.schema.compatibility import NEWER, known_version, least_code_of, refusal
from outbox.schema.preconditions import require_ours, require_primary, require_server
from outbox.schema.settings import ALIKE, NO_ROW_HIDDEN
from outbox.schema.table_locks import lock_tables, tables_changed_by

__all__ = [
    "Migration",
    "applied_migrations",
    "apply",
    "migrate",
    "migrations",
    "missing_roles",
    "read_sql",
    "render_sql",
    "require_current",
]

ROLES = ("outbox_app", "outbox_operator", "outbox_relay", "outbox_reader")
# One process migrates at a time: a lock that the owner of the table can take, and no reader waits for. The first time
# there is no table yet; then the server lets one process make it and refuses the others when that one has committed.
_TAKE_TURN = "lock table outbox.schema_migrations in exclusive mode"
_MADE_MEANWHILE = ("23505", "42P06", "42P07")
# A process that is stopped in the middle keeps the others, and the tables that it changes, for no longer than this.
_LIMITS = "set local idle_in_transaction_session_timeout = '60s';"
# These bound what others do: an index takes longer. A transaction of an application's own (Alembic, Django) keeps them.
_UNBOUNDED = """select pg_catalog.set_config(name, '0', true) from pg_catalog.pg_settings
where name in ('statement_timeout', 'transaction_timeout')"""
_LOCK_NOT_AVAILABLE, _EXISTS = "55P03", "42P07"
_IN_USE = (_LOCK_NOT_AVAILABLE, "40P01")  # and a deadlock with somebody who holds one table and waits for another
_UNDEFINED, _NOT_ALLOWED = ("42P01", "3F000", "42703"), "42501"  # 42703: a table of this name that is not ours
SCHEMA_SQL = "create schema if not exists outbox;\n"
VERSIONS_SQL = """\
create table if not exists outbox.schema_migrations (
    version integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp()
);
"""
_OWNER = """
select pg_catalog.current_database(), current_user,
       (select pg_catalog.pg_get_userbyid(nspowner) from pg_catalog.pg_namespace where nspname = 'outbox')
"""

_WITHOUT_IDENTITY = """
select c.relname from outbox.without_identity() leaf join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) leaf"""

log = logging.getLogger("outbox.schema")


@dataclass(frozen=True)
class Migration:
    """One numbered file: its version, name, SQL text and the SHA-256 of that text."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the SQL text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def record(self) -> str:
        """The statement that notes that it was applied, and which code may go on beside it where it says so."""
        values = {"version": self.version, "name": f"'{self.name}'", "checksum": f"'{self.checksum}'"}
        if (least_code := least_code_of(self.sql)) is not None:
            values["least_code"] = least_code
        columns, texts = ", ".join(values), ", ".join(map(str, values.values()))
        return f"insert into outbox.schema_migrations ({columns}) values ({texts});\n"  # noqa: S608 - our own files


def migrations() -> list[Migration]:
    """Return every migration this version knows, oldest first."""
    found = []
    for file in files("outbox.schema").joinpath("migrations").iterdir():
        number, _, rest = file.name.partition("_")
        if number.isdigit() and rest.endswith(".sql"):
            found.append(Migration(int(number), rest.removesuffix(".sql"), file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def migrate(connection: Connection) -> list[Migration]:
    """Apply the missing migrations in one transaction and return them; then grant rights and make the first leaves.

    It may run twice, and in two processes at once. The connection is on psycopg or psycopg2 and has no transaction
    open, before and after. A newer schema that this version may use is left as it is. Raises SchemaError when the
    server or the schema does not fit, the user lacks a right, or a transaction that stays open holds a table; nothing
    is changed then.
    """
    with connection.begin():
        connection.exec_driver_sql(_UNBOUNDED)
        missing = apply(connection)
    if missing is None:
        return []
    _make_leaves(connection)
    if absent := missing_roles(connection):
        log.warning("%s not made: the migrating user may not make roles", ", ".join(absent))
    connection.rollback()
    return missing


def apply(connection: Connection, up_to: int | None = None) -> list[Migration] | None:
    """Apply the missing migrations in the transaction that is open, and return them; none beyond `up_to`, if given.

    Rights are granted with the newest one that this version knows, since they name what it made. None: the schema is
    newer than this version, which may use it, and was left as it is. Settings (ALIKE) and limits stay until the
    transaction ends. Raises SchemaError as `migrate` does.
    """
    with _explain_refusal(connection):
        require_server(connection)
        require_primary(connection)
        cursor = connection.connection.cursor()
        cursor.execute(f"{ALIKE}{NO_ROW_HIDDEN}{_LIMITS}")
        require_ours(connection)
        if connection.scalar(text("select pg_catalog.to_regnamespace('outbox')")) is None:
            _make(cursor, SCHEMA_SQL)  # needs a right on the database, even where the schema exists
        if connection.scalar(text("select pg_catalog.to_regclass('outbox.schema_migrations')")) is None:
            _make(cursor, VERSIONS_SQL)
        cursor.execute(_TAKE_TURN)
        applied = applied_migrations(connection)
        if max(applied, default=0) > known_version():
            _require_usable(connection)
            log.warning("the schema is newer than this version, which may use it: nothing was done")
            return None
        last = up_to or migrations()[-1].version
        missing = [one for one in migrations() if one.version not in applied and one.version <= last]
        if applied:
            lock_tables(cursor, _changed_by(connection, missing), _is_in_use)
        for migration in missing:
            cursor.execute(migration.sql)
            cursor.execute(migration.record)
        if last >= known_version():
            cursor.execute(read_sql("grants.sql"))
    return missing


def _changed_by(connection: Connection, missing: list[Migration]) -> set[str]:
    """Return the names of what these migrations lock against reading or writing, and what grants.sql may lock."""
    names = set().union(*(tables_changed_by(migration.sql) for migration in missing))
    if connection.scalar(text("select pg_catalog.to_regprocedure('outbox.without_identity()')")) is not None:
        names |= set(connection.execute(text(_WITHOUT_IDENTITY)).scalars())
    return names


def _make(cursor: DBAPICursor, statement: str) -> None:
    """Make the schema or its first table; where another process makes it too, wait for that one."""
    cursor.execute("savepoint made")
    try:
        cursor.execute(statement)
    except Exception as error:  # the driver's own
        if _sqlstate(error) not in _MADE_MEANWHILE:
            raise
        cursor.execute("rollback to savepoint made")
    cursor.execute("release savepoint made")


def render_sql() -> str:
    """Return everything as one psql script, for a database without the schema."""
    parts = [f"-- {m.version:04} {m.name}\n{m.sql}\n{m.record}" for m in migrations()]
    script = [ALIKE, NO_ROW_HIDDEN, SCHEMA_SQL, VERSIONS_SQL, *parts, read_sql("grants.sql"), read_sql("leaves.sql")]
    return "\n".join(["\\set ON_ERROR_STOP on\nbegin;", *script, "commit;\n"])


def require_current(connection: Connection) -> None:
    """Raise SchemaError unless the schema is there, readable, and one that this version may use.

    That is the one it knows, or a newer one whose migrations say that code of this version may go on beside them.
    """
    require_server(connection)
    with _explain_errors(connection):
        newest = max(applied_migrations(connection), default=0)
    if newest > known_version():
        _require_usable(connection)
    if newest < known_version():
        raise SchemaError(
            f"the outbox schema is at version {newest}, this version needs {known_version()}: run `relay migrate`"
        )


def missing_roles(connection: Connection) -> list[str]:
    """Return those of the four group roles that the server does not have."""
    return [role for role in ROLES if connection.scalar(text("select to_regrole(:role)"), {"role": role}) is None]


def applied_migrations(connection: Connection) -> dict[int, str]:
    """Return the checksum of each migration that was applied, by its version."""
    rows = connection.execute(text("select version, checksum from outbox.schema_migrations"))
    return {row.version: row.checksum for row in rows}


def _require_usable(connection: Connection) -> None:
    """Raise SchemaError if a migration that we do not know is for newer code than this."""
    known = known_version()
    newer = connection.execute(text(NEWER.format(known=known)))
    reason = refusal([(row.version, row.least_code) for row in newer], known)
    if reason:
        raise SchemaError(reason)


@contextmanager
def _explain_errors(connection: Connection) -> Iterator[None]:
    """Turn the server's error about a missing or forbidden schema into one line with the fix."""
    try:
        yield
    except DBAPIError as error:
        code = _sqlstate(error)
        database = connection.engine.url.database
        if code in _UNDEFINED:
            raise SchemaError(f"database {database} has no outbox schema: run `relay migrate`") from error
        if is_row_security(error.orig):
            raise SchemaError(f"{_reason(error)}: {mend_row_security(error.orig)}") from error
        if code == _NOT_ALLOWED:
            raise SchemaError(
                f"schema outbox in {database} is closed to this user: grant outbox_relay to it"
            ) from error
        raise


@contextmanager
def _explain_refusal(connection: Connection) -> Iterator[None]:
    """Turn the server's refusal to migrate into one line that says who may migrate, or what to wait for."""
    database, role, owner = connection.execute(text(_OWNER)).one()
    try:
        yield
    except Exception as error:  # the cursor is the driver's own and raises the driver's errors
        if _is_in_use(error):
            raise SchemaError(
                "migrate: a table of the schema outbox is in use by another transaction, and nothing was changed;"
                " end that transaction (pg_stat_activity lists it), or run it again when it has ended"
            ) from error
        if is_row_security(getattr(error, "orig", error)):
            raise SchemaError(f"migrate: {_reason(error)}: {mend_row_security(_reason(error), 'the owner')}") from error
        if _sqlstate(error) != _NOT_ALLOWED:
            raise
        mend = f"{owner}, the owner of the schema outbox" if owner else f"the owner of {database}"
        grant = "" if owner else f", or grant create on database {database} to {role}"
        raise SchemaError(f"migrate: {_reason(error)}; run it as {mend}{grant}") from error


def _make_leaves(connection: Connection) -> None:
    try:
        with connection.begin():
            connection.exec_driver_sql(_UNBOUNDED)
            connection.exec_driver_sql(read_sql("leaves.sql"))
    except DBAPIError as error:
        if _sqlstate(error) == _LOCK_NOT_AVAILABLE:
            log.info("partitions are in use; the relay makes the next ones")
        elif _sqlstate(error) == _EXISTS:
            log.warning(
                "no partition was made: %s, and is none. If somebody detached it, attach it again; otherwise rename it."
                " Until then rows go to the default partition",
                _reason(error),
            )
        else:
            raise


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", error)).strip().splitlines()[0]


def _is_in_use(error: Exception) -> bool:
    return _sqlstate(error) in _IN_USE


def _sqlstate(error: Exception) -> Any:
    cause = getattr(error, "orig", error)
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)


def read_sql(name: str) -> str:
    """Return the text of a file of `migrations`."""
    return files("outbox.schema").joinpath("migrations", name).read_text(encoding="utf-8")
