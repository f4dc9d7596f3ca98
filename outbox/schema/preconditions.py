"""What must hold of a server and a database before the schema is made there or used. Each raises SchemaError."""

from __future__ import annotations

from sqlalchemy import Connection, text

from outbox.errors import SchemaError

__all__ = ["OLDEST_SERVER", "require_ours", "require_primary", "require_server"]

OLDEST_SERVER = 15
# What stands in a schema outbox that is not ours: ours has this table with these columns from the first moment on.
_STRANGERS = """
select c.relname from pg_catalog.pg_class c
where c.relnamespace = pg_catalog.to_regnamespace('outbox')
  and 3 > (select pg_catalog.count(*) from pg_catalog.pg_attribute a
           where a.attrelid = pg_catalog.to_regclass('outbox.schema_migrations')
             and a.attname in ('version', 'name', 'checksum'))
order by c.relkind not in ('r', 'p', 'v'), c.relname limit 4
"""


def require_server(connection: Connection) -> None:
    """Refuse a server that is too old, and a database that does not keep every character."""
    version, encoding = connection.execute(
        text("select current_setting('server_version_num')::integer, current_setting('server_encoding')")
    ).one()
    if version < OLDEST_SERVER * 10_000:
        raise SchemaError(f"the server is PostgreSQL {version // 10_000}; {OLDEST_SERVER} or later is needed")
    if encoding != "UTF8":
        raise SchemaError(f"the database's encoding is {encoding}; create one with ENCODING 'UTF8'")


def require_primary(connection: Connection) -> None:
    """Refuse a standby."""
    if connection.scalar(text("select pg_catalog.pg_is_in_recovery()")):
        raise SchemaError("the server is a standby, which takes no writes: name the primary in database_url")


def require_ours(connection: Connection) -> None:
    """Refuse a schema outbox that is the application's own: nothing of it is touched."""
    names = connection.execute(text(_STRANGERS)).scalars().all()
    if names:
        listed = ", ".join(f"outbox.{name}" for name in names[:3]) + (" and others" if len(names) > 3 else "")
        raise SchemaError(
            f"the schema outbox in this database is not outbox-relay's: it holds {listed}; nothing was changed. Rename"
            " it (alter schema outbox rename to …), or give outbox-relay a database of its own: its schema is always"
            " named outbox"
        )
