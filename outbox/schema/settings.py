"""The settings under which our SQL files are read, and what the server prints of the schema is compared.

A database or a role may have its own (`alter database … set`), and an application's connection its own encoding. Then a
backslash in a file would mean something else, and a default or a function would be printed in another style.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

__all__ = ["ALIKE", "NO_ROW_HIDDEN", "SETTINGS", "printed_alike"]

SETTINGS = {
    "search_path": "pg_catalog, pg_temp",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "datestyle": "ISO, MDY",
    "timezone": "UTC",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
}
ALIKE = "".join(
    f"set local {name} = {value if name == 'search_path' else repr(value)};\n" for name, value in SETTINGS.items()
)
"""Statements that make them so until the transaction ends.

They are sent apart from what depends on them: a text is read as a whole before its first statement runs.
"""

NO_ROW_HIDDEN = "set local row_security = off;\n"
"""For steps that change rows: where row level security would hide some, also from an owner, it is an error."""

_FORMER = text("select " + ", ".join(f"current_setting('{name}')" for name in SETTINGS))
_SET = text("select " + ", ".join(f"set_config('{name}', :{name}, true)" for name in SETTINGS))


@contextmanager
def printed_alike(connection: Connection) -> Iterator[None]:
    """Set them for what the block reads in the transaction that is open, and put them back.

    Without a transaction (autocommit) they have no effect. An error in the block ends transaction and settings.
    """
    former = connection.execute(_FORMER).one()
    connection.execute(_SET, SETTINGS)
    yield
    connection.execute(_SET, dict(zip(SETTINGS, former, strict=True)))
