"""A column of JSON text that is kept as written, so that its numbers stay exact, and read as an object."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Text, TypeDecorator

__all__ = ["JSON_TEXT"]


class _JSONText(TypeDecorator[Any]):
    """Text in the database; a dict here. A number is a float only where that is exactly what the text says."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """Store the text that the field's check has made."""
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Parse what is stored. What somebody has stored by hand and nobody can read is shown as text."""
        from outbox.subscriptions.filters.values import as_read, read_filter  # most programs read no filter

        if value is None:
            return None
        try:
            return as_read(read_filter(value))
        except (ValueError, RecursionError):
            return {"$unreadable": value[:200]}


JSON_TEXT = _JSONText()
"""The type of such a column."""
