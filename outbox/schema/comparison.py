"""Compare the database's schema with what this version would make, and find what else is not as it should be."""

from __future__ import annotations

from sqlalchemy import Connection, text

from outbox.errors import SchemaError
from outbox.schema.compatibility import known_version
from outbox.schema.runner import applied_migrations, migrations, read_sql, require_current
from outbox.schema.settings import printed_alike

__all__ = ["catalog", "differences", "findings"]


def differences(connection: Connection) -> list[str]:
    """Return the differences between the database's outbox schema and this version's listing, one line each.

    Leaves, grants and the tables' contents are not compared. Raises SchemaError like `require_current`, and where the
    schema is newer than the listing.
    """
    require_current(connection)
    newest = max(applied_migrations(connection))
    if newest > known_version():
        raise SchemaError(
            f"the outbox schema is at version {newest}, newer than {known_version()}: this version may use it and"
            " cannot check it; ask the outbox-relay that migrated it"
        )
    found, expected = set(catalog(connection)), set(read_sql("catalog.txt").splitlines())
    printed = {_object_of(line) for line in found & expected}
    edited = {m.version: m.checksum for m in migrations()}.items() ^ applied_migrations(connection).items()
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
    with printed_alike(connection):
        rows = connection.execute(text("select seen, mend from outbox.findings() order by code, subject, seen")).all()
    return [f"{row.seen}; mend: {row.mend}" for row in rows]


def catalog(connection: Connection) -> list[str]:
    """Read the schema from the server's catalog: one line for each object, sorted, the same on every server version."""
    with printed_alike(connection):
        return sorted(connection.exec_driver_sql(read_sql("catalog.sql")).scalars())
