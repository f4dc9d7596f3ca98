"""Statements that relays share: written for psycopg, and run here on whatever driver the caller's session has."""

from __future__ import annotations

import re

from sqlalchemy import TextClause, text

__all__ = ["for_any_driver"]

_PARAMETER = re.compile(r"%\((\w+)\)s::(\w+\[\])")


def for_any_driver(statement: str) -> TextClause:
    """Return the statement with its parameters, each an array of a named type, as SQLAlchemy passes them on."""
    return text(_PARAMETER.sub(r"cast(:\1 as \2)", statement))
