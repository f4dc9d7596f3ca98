"""Connections to SQLite that a test opened by SQLAlchemy. One that is left open warns in whichever test runs then."""

from __future__ import annotations

import sqlite3

import sqlalchemy.event
from sqlalchemy.pool import Pool

__all__ = ["take_open"]

_made: list[sqlite3.Connection] = []


@sqlalchemy.event.listens_for(Pool, "connect")
def _note(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        _made.append(connection)


def take_open() -> list[sqlite3.Connection]:
    """Return those that are open still, and forget all."""
    found = [connection for connection in _made if _is_open(connection)]
    _made.clear()
    return found


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        return connection.total_changes >= 0
    except sqlite3.ProgrammingError:
        return False
