"""Apply and check the database schema, which is numbered plain SQL files.

Alembic is not used: the SQL files stay the one truth, `import outbox` does not need Alembic, and a user's own Alembic
keeps its version table to itself. Each `migrate` also runs `grants.sql` and `leaves.sql` again.
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

from outbox.errors import SchemaError
from outbox.schema.compatibility import NEWER, known_version, least_code_of, refusal

__all__ = [
    "Migration",
    "catalog",
    "differences",
    "findings",
    "migrate",
    "migrations",
    "missing_roles",
    "render_sql",
    "require_current",
]

ROLES = ("outbox_app", "outbox_operator", "outbox_relay", "outbox_reader")
_OLDEST_SERVER = 15
# One process migrates at a time: a lock that the owner of the table can take, and no reader waits for. The first time
# there is no table yet; then the server lets one process make it and refuses the others when that one has committed.
_TAKE_TURN = "lock table outbox.schema_migrations in exclusive mode"
_MADE_MEANWHILE = ("23505", "42P06", "42P07")
# A process that is stopped in the middle keeps the others, and the tables that it changes, for no longer than this.
_LIMITS = "set local idle_in_transaction_session_timeout = '60s';"
_LOCK_NOT_AVAILABLE = "55P03"
_IN_USE = (_LOCK_NOT_AVAILABLE, "40P01")  # and a deadlock with somebody who holds one table and waits for another
_UNDEFINED, _NOT_ALLOWED = ("42P01", "3F000", "42703"), "42501"  # 42703: a table of this name that is not ours
_SEARCH_PATH = "set local search_path = pg_catalog, pg_temp;\n"
SCHEMA_SQL = "create schema if not exists outbox;\n"
VERSIONS_SQL = """\
create table if not exists outbox.schema_migrations (
    version integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp()
);
"""
# What stands in a schema outbox that is not ours: ours has this table with these columns from the first moment on.
_STRANGERS = """
select c.relname from pg_catalog.pg_class c
where c.relnamespace = pg_catalog.to_regnamespace('outbox')
  and 3 > (select pg_catalog.count(*) from pg_catalog.pg_attribute a
           where a.attrelid = pg_catalog.to_regclass('outbox.schema_migrations')
             and a.attname in ('version', 'name', 'checksum'))
order by c.relkind not in ('r', 'p', 'v'), c.relname limit 4
"""
_OWNER = """
select pg_catalog.current_database(), current_user,
       (select pg_catalog.pg_get_userbyid(nspowner) from pg_catalog.pg_namespace where nspname = 'outbox')
"""

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
    with connection.begin(), _explain_refusal(connection):
        _require_server(connection)
        _require_primary(connection)
        cursor = connection.connection.cursor()
        cursor.execute(f"{_SEARCH_PATH}{_LIMITS}")
        _require_ours(connection)
        if connection.scalar(text("select pg_catalog.to_regnamespace('outbox')")) is None:
            _make(cursor, SCHEMA_SQL)  # needs a right on the database, even where the schema exists
        if connection.scalar(text("select pg_catalog.to_regclass('outbox.schema_migrations')")) is None:
            _make(cursor, VERSIONS_SQL)
        cursor.execute(_TAKE_TURN)
        applied = _applied(connection)
        if max(applied, default=0) > known_version():
            _require_usable(connection)
            log.warning("the schema is newer than this version, which may use it: nothing was done")
            return []
        missing = [migration for migration in migrations() if migration.version not in applied]
        for migration in missing:
            cursor.execute(migration.sql)
            cursor.execute(migration.record)
        cursor.execute(read_sql("grants.sql"))
    _make_leaves(connection)
    if absent := missing_roles(connection):
        log.warning("%s not made: the migrating user may not make roles", ", ".join(absent))
    connection.rollback()
    return missing


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
    script = [_SEARCH_PATH, SCHEMA_SQL, VERSIONS_SQL, *parts, read_sql("grants.sql"), read_sql("leaves.sql")]
    return "\n".join(["\\set ON_ERROR_STOP on\nbegin;", *script, "commit;\n"])


def require_current(connection: Connection) -> None:
    """Raise SchemaError unless the schema is there, readable, and one that this version may use.

    That is the one it knows, or a newer one whose migrations say that code of this version may go on beside them.
    """
    _require_server(connection)
    with _explain_errors(connection):
        newest = max(_applied(connection), default=0)
    if newest > known_version():
        _require_usable(connection)
    if newest < known_version():
        raise SchemaError(
            f"the outbox schema is at version {newest}, this version needs {known_version()}: run `relay migrate`"
        )


def missing_roles(connection: Connection) -> list[str]:
    """Return those of the four group roles that the server does not have."""
    return [role for role in ROLES if connection.scalar(text("select to_regrole(:role)"), {"role": role}) is None]


def differences(connection: Connection) -> list[str]:
    """Return the differences between the database's outbox schema and this version's listing, one line each.

    Leaves, grants and the tables' contents are not compared. Raises SchemaError like `require_current`, and where the
    schema is newer than the listing.
    """
    require_current(connection)
    newest = max(_applied(connection))
    if newest > known_version():
        raise SchemaError(
            f"the outbox schema is at version {newest}, newer than {known_version()}: this version may use it and"
            " cannot check it; ask the outbox-relay that migrated it"
        )
    found, expected = set(catalog(connection)), set(read_sql("catalog.txt").splitlines())
    printed = {_object_of(line) for line in found & expected}
    edited = {m.version: m.checksum for m in migrations()}.items() ^ _applied(connection).items()
    return [
        *(f"missing: {line}" for line in sorted(expected - found) if _object_of(line) not in printed),
        *(f"unexpected: {line}" for line in sorted(found - expected)),
        *(f"migration {version:04} was edited after it was applied" for version in sorted({v for v, _ in edited})),
    ]


def _object_of(line: str) -> str:
    """Return the line without the hash of a function's body: after a dump and a restore it may be the other one."""
    return line.rpartition(" ")[0] if line.startswith("function ") else line


def findings(connection: Connection) -> list[str]:
    """Return what else is not as it should be, one line each: what was seen, and its mend.

    Texts sorted by another version of their collation, rights that are too wide, a sequence behind its rows, tables
    without a replica identity, deliveries without a subscription. `outbox.findings()` in SQL has the same as rows.
    """
    rows = connection.execute(text("select seen, mend from outbox.findings() order by code, subject, seen"))
    return [f"{row.seen}; mend: {row.mend}" for row in rows]


def catalog(connection: Connection) -> list[str]:
    """Read the schema from the server's catalog: one line for each object, sorted, the same on every server version."""
    with connection.begin_nested() if connection.in_transaction() else connection.begin():
        connection.execute(text("select set_config('search_path', 'pg_catalog', true)"))
        return sorted(connection.exec_driver_sql(read_sql("catalog.sql")).scalars())


def _applied(connection: Connection) -> dict[int, str]:
    rows = connection.execute(text("select version, checksum from outbox.schema_migrations"))
    return {row.version: row.checksum for row in rows}


def _require_server(connection: Connection) -> None:
    version, encoding = connection.execute(
        text("select current_setting('server_version_num')::integer, current_setting('server_encoding')")
    ).one()
    if version < _OLDEST_SERVER * 10_000:
        raise SchemaError(f"the server is PostgreSQL {version // 10_000}; {_OLDEST_SERVER} or later is needed")
    if encoding != "UTF8":
        raise SchemaError(f"the database's encoding is {encoding}; create one with ENCODING 'UTF8'")


def _require_primary(connection: Connection) -> None:
    if connection.scalar(text("select pg_catalog.pg_is_in_recovery()")):
        raise SchemaError("the server is a standby, which takes no writes: name the primary in database_url")


def _require_ours(connection: Connection) -> None:
    """Refuse a schema outbox that is the application's own: nothing of it is touched."""
    names = connection.execute(text(_STRANGERS)).scalars().all()
    if names:
        listed = ", ".join(f"outbox.{name}" for name in names[:3]) + (" and others" if len(names) > 3 else "")
        raise SchemaError(
            f"the schema outbox in this database is not outbox-relay's: it holds {listed}; nothing was changed. Rename"
            " it (alter schema outbox rename to …), or give outbox-relay a database of its own: its schema is always"
            " named outbox"
        )


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
        if _sqlstate(error) in _IN_USE:
            raise SchemaError(
                "migrate: a table of the schema outbox is in use by another transaction, and nothing was changed;"
                " end that transaction (pg_stat_activity lists it), or run it again when it has ended"
            ) from error
        if _sqlstate(error) != _NOT_ALLOWED:
            raise
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        mend = f"{owner}, the owner of the schema outbox" if owner else f"the owner of {database}"
        grant = "" if owner else f", or grant create on database {database} to {role}"
        raise SchemaError(f"migrate: {reason}; run it as {mend}{grant}") from error


def _make_leaves(connection: Connection) -> None:
    try:
        with connection.begin():
            connection.exec_driver_sql(read_sql("leaves.sql"))
    except DBAPIError as error:
        if _sqlstate(error) != _LOCK_NOT_AVAILABLE:
            raise
        log.info("partitions are in use; the relay makes the next ones")


def _sqlstate(error: Exception) -> Any:
    cause = getattr(error, "orig", error)
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)


def read_sql(name: str) -> str:
    return files("outbox.schema").joinpath("migrations", name).read_text(encoding="utf-8")
