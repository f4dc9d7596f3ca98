"""Which columns an UPDATE sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, Update

__all__ = ["set_columns"]


def set_columns(table: Table, statement: Update, sets: Sequence[Mapping[str, Any]]) -> Iterator[ColumnElement[Any]]:
    """Yield the columns that an UPDATE sets, by its values or by its parameters."""
    entity = statement.entity_description.get("entity")
    ordered = getattr(statement, "_ordered_values", None) or ()
    for name in (*(getattr(statement, "_values", None) or ()), *(name for name, _ in ordered)):
        named = getattr(entity, name, name) if isinstance(name, str) else name
        if isinstance(named, str):
            named = table.columns.get(named)
        elif hasattr(named, "__clause_element__"):
            named = named.__clause_element__()
        if named is not None:
            yield from getattr(named, "clauses", (named,))  # a composite attribute has several
    for name in {name for values in sets for name in values}:
        if name in table.columns:
            yield table.columns[name]
