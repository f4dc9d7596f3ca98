"""SQL as text that changes captured rows, on a connection of a session: it is refused, since nothing tells which rows.

A text is looked through for the words that change a table, outside of its strings and comments. What changes rows in a
function that it calls, or in a view, is not found; nor is a COPY by the driver's own cursor, which SQLAlchemy does not
see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import FromClause

from outbox.capturing.registry import captured_tables
from outbox.errors import CaptureError

__all__ = ["refuse_text"]

# A name in quotes may hold a ', so it is met here too, and stays.
_UNREAD = re.compile(
    r"""("(?:[^"]|"")*")|\be'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\2\$""",
    re.DOTALL | re.IGNORECASE,
)
_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_CHANGE = re.compile(
    rf"\b(?:insert\s+into|update|delete\s+from|merge\s+into|copy|truncate(?:\s+table)?)\s+(?:only\s+)?"
    rf"(?:({_NAME})\s*\.\s*)?({_NAME})",
    re.IGNORECASE,
)


def refuse_text(statement: str, context: Any, option: str) -> None:
    """Raise CaptureError where SQL as text changes a captured table, unless its captures ignore such statements.

    `option`: the name of the execution option that says so for one statement.
    """
    chosen = context.execution_options.get(option)
    for table in _changed(statement, captured_tables(), context.dialect.default_schema_name):
        if refusing := [one for one in captured_tables()[table] if (chosen or one.bulk) != "ignore"]:
            raise CaptureError(
                f"SQL as text changes {table}: {refusing[0]!r} would not see it, and cannot cover it. Change the"
                f" objects instead, or use update(), insert() or delete(); or add execution_options({option}="
                '"ignore") and record() yourself'
            )


def _changed(statement: str, captured: Iterable[FromClause], default_schema: str | None) -> Iterator[FromClause]:
    """Yield the captured tables that a text changes."""
    named = [
        (table, getattr(table, "schema", None) or default_schema, getattr(table, "name", "")) for table in captured
    ]
    folded = statement.lower()
    if not any(name.lower() in folded for _, _, name in named):
        return
    for change in _CHANGE.finditer(_UNREAD.sub(_name_or_blank, statement)):
        schema, name = (part and _meant(part) for part in change.groups())
        for table, own_schema, own_name in named:
            if name == own_name and schema in (None, own_schema):
                yield table


def _name_or_blank(unread: re.Match[str]) -> str:
    return unread[1] or " "


def _meant(name: str) -> str:
    """Return the name that PostgreSQL reads: as it stands in quotes, else in lower case."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
