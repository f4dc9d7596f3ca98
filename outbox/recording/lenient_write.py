"""Write an event for `record(on_error="log")` on whatever kind of target, in a savepoint where it is a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection

from outbox.recording import targets
from outbox.recording.guarded_insert import CLAIM, CLAIM_LATER, attempt
from outbox.recording.insert import (
    Row,
    awrite_asyncpg,
    awrite_psycopg,
    check_asyncpg,
    check_driver,
    sync_pipeline,
    write_psycopg,
)
from outbox.recording.session import remember

__all__ = ["awrite", "write"]

_BEGIN = "savepoint outbox_record"
_UNDO = "rollback to savepoint outbox_record"
_END = "release savepoint outbox_record"

_Run: TypeAlias = Callable[[str], Awaitable[object]]
_WriteRow: TypeAlias = Callable[[Any, Row], Awaitable[None]]


def write(target: Any, row: Row) -> None:
    """Write a row on a target of `record()`: on a connection at once, on a session before it commits."""
    if (session := targets.session_of(target)) is not None:
        remember(session, row, leniently=True)
    elif isinstance(target, Connection):
        attempt(target, [row])
    elif targets.is_psycopg(target):
        _attempt_psycopg(target, row)
    elif targets.is_django(target):
        from outbox.django.writing import attempt_django  # it loads Django, which is there if its connection is

        attempt_django(target, row, _claims(row))
    else:
        targets.refuse(target)


async def awrite(target: Any, row: Row) -> None:
    """Write a row on a target of `arecord()`."""
    if targets.is_psycopg_async(target):
        await _attempt_psycopg_async(target, row)
    elif targets.is_asyncpg(target):
        await _attempt_asyncpg(target, row)
    else:
        targets.refuse(target)


def _attempt_psycopg(connection: Any, row: Row) -> None:
    """Write a row in a savepoint. psycopg's own transaction() would commit where none has begun."""
    from psycopg import Cursor

    check_driver(connection, connection)

    def run(statement: str) -> None:
        with sync_pipeline(connection):
            Cursor(connection).execute(statement)

    run(_BEGIN)
    try:
        write_psycopg(connection, row)
        for statement in _claims(row):
            run(statement)
    except Exception:
        run(_UNDO)
        raise
    finally:
        run(_END)


async def _attempt_psycopg_async(connection: Any, row: Row) -> None:
    from psycopg import AsyncCursor

    check_driver(connection, connection)

    async def run(statement: str) -> None:
        async with sync_pipeline(connection):
            await AsyncCursor(connection).execute(statement)

    await _attempt(run, awrite_psycopg, connection, row)


async def _attempt_asyncpg(connection: Any, row: Row) -> None:
    check_asyncpg(connection)
    await _attempt(connection.execute, awrite_asyncpg, connection, row)


async def _attempt(run: _Run, write_row: _WriteRow, connection: Any, row: Row) -> None:
    await run(_BEGIN)
    try:
        await write_row(connection, row)
        for statement in _claims(row):
            await run(statement)
    except Exception:
        await run(_UNDO)
        raise
    finally:
        await run(_END)


def _claims(row: Row) -> Sequence[str]:
    return () if row.idempotency_key is None else (CLAIM, CLAIM_LATER)
