"""Insert events in the order given, on any kind of connection: one statement for each run of rows of one kind.

The state of the connection is checked before any SQL: a refusal then costs the caller nothing, while an error from the
server would end the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, text

from outbox.errors import RecordError, TransactionError
from outbox.recording.idempotency import other_content
from outbox.recording.named_errors import ABORTED, READ_ONLY, name_errors
from outbox.recording.statements import (
    ASYNCPG_ONE,
    PLAIN_COLUMNS,
    PSYCOPG_ONE,
    Kind,
    Row,
    columns_of,
    kind_of,
)

__all__ = [
    "Row",
    "awrite_asyncpg",
    "awrite_psycopg",
    "check",
    "check_asyncpg",
    "check_driver",
    "refuse_other_content",
    "refuse_others",
    "statement_for",
    "sync_pipeline",
    "write",
    "write_psycopg",
]

_CHUNK_ROWS = 5_000
_CHUNK_CHARACTERS = 8_000_000
_IN_TRANSACTION, _FAILED, _UNKNOWN = 2, 3, 4  # libpq's PQTRANS_INTRANS, _INERROR, _UNKNOWN


def write(connection: Connection, rows: Sequence[Row]) -> None:
    """Insert the rows, at least one, in the connection's open transaction.

    Raises:
        RecordError: an idempotency key was used for other content; that row and those behind it are not written.
        TransactionError: the transaction could not carry them.
        SchemaError: the database has no outbox schema.
    """
    with name_errors:
        check(connection)
        run = _run_binary if connection.dialect.driver in ("psycopg", "psycopg_async") else _run_json
        for kind, chunk in chunks(rows) if len(rows) > 1 else ((kind_of(rows[0]), rows),):
            run(connection, kind, chunk)


def refuse_other_content(connection: Connection, row: Row) -> bool:
    """Tell whether this row's event is recorded already, as far as the connection's transaction can see.

    Raises RecordError where it has other content, and nothing is changed then; otherwise what `write` raises.
    """
    with name_errors:
        check(connection)
        recorded = connection.execute(_RECORDED, {"id": row.id}).scalar()
    if recorded is not None and bytes(recorded) != row.content:
        raise other_content(row.idempotency_key or "")
    return recorded is not None


_RECORDED = text("select outbox.content_recorded(cast(:id as uuid))")


def write_psycopg(connection: Any, row: Row) -> None:
    """Insert one row on a raw psycopg connection, whatever its cursor and row factories.

    In pipeline mode, send what is queued first and wait for the answers: only then is it known whether a transaction is
    open, and whose error it is.
    """
    from psycopg import Cursor, rows

    with sync_pipeline(connection):
        check_driver(connection, connection)
    with name_errors, sync_pipeline(connection):
        cursor = Cursor(connection, row_factory=rows.tuple_row).execute(*statement_for(row))
        answers = cursor.fetchall() if cursor.description else ()
    refuse_others(answers)


async def awrite_psycopg(connection: Any, row: Row) -> None:
    """Insert one row on a raw psycopg AsyncConnection, as `write_psycopg` does."""
    from psycopg import AsyncCursor, rows

    async with sync_pipeline(connection):
        check_driver(connection, connection)
    with name_errors:
        async with sync_pipeline(connection):
            cursor = await AsyncCursor(connection, row_factory=rows.tuple_row).execute(*statement_for(row))
            answers = await cursor.fetchall() if cursor.description else ()
    refuse_others(answers)


def sync_pipeline(connection: Any) -> Any:
    """Return a block that empties the connection's pipeline, if there is one, when it begins and when it ends."""
    return connection.pipeline() if connection.info.pipeline_status else nullcontext()


async def awrite_asyncpg(connection: Any, row: Row) -> None:
    """Insert one row on a raw asyncpg connection, which must be in a transaction block."""
    check_asyncpg(connection)
    with name_errors:
        kind = kind_of(row)
        if kind is Kind.PLAIN:
            await connection.execute(ASYNCPG_ONE, *row[:PLAIN_COLUMNS])
            return
        answers = await connection.fetch(kind.asyncpg, *columns_of(kind, [row]))
    refuse_others(answers)


def check_asyncpg(connection: Any) -> None:
    """Raise TransactionError for an asyncpg connection that cannot carry an event."""
    if connection.is_closed():
        raise TransactionError("the connection is closed: no transaction can carry the event")
    if not connection.is_in_transaction():
        raise TransactionError(_AUTOCOMMIT.format("open one with `async with connection.transaction():`"))


def statement_for(row: Row) -> tuple[str, tuple[Any, ...]]:
    """Return psycopg's statement for one row, and its parameters."""
    kind = kind_of(row)
    return (PSYCOPG_ONE, row[:PLAIN_COLUMNS]) if kind is Kind.PLAIN else (kind.psycopg, columns_of(kind, [row]))


def _run_binary(connection: Connection, kind: Kind, rows: Sequence[Row]) -> None:
    if kind is Kind.PLAIN and len(rows) == 1:
        connection.exec_driver_sql(PSYCOPG_ONE, rows[0][:PLAIN_COLUMNS])
        return
    result = connection.exec_driver_sql(kind.psycopg, columns_of(kind, rows))
    if kind is Kind.ONCE:
        refuse_others(result.all())


def _run_json(connection: Connection, kind: Kind, rows: Sequence[Row]) -> None:
    document = json.dumps([_document(kind, row) for row in rows], ensure_ascii=False)
    result = connection.execute(kind.json, {"rows": document})
    if kind is Kind.ONCE:
        refuse_others(result.all())


def refuse_others(answers: Iterable[Sequence[Any]]) -> None:
    """Raise RecordError where an answer of ONCE says that its key was used for other content."""
    for idempotency_key, same in answers:
        if not same:
            raise other_content(idempotency_key)


def _document(kind: Kind, row: Row) -> dict[str, Any]:
    at = row.available_at
    named = dict(zip(row._fields[: kind.columns], row, strict=False))
    return named | {"id": str(row.id), "available_at": at and at.isoformat()}


def chunks(rows: Sequence[Row]) -> Iterator[tuple[Kind, Sequence[Row]]]:
    """Split the rows by kind, count and size, so that no statement grows without bound."""
    for kind, run in groupby(rows, kind_of):
        chunk: list[Row] = []
        characters = 0
        for row in run:
            size = len(row.payload)
            if len(chunk) == _CHUNK_ROWS or (characters + size > _CHUNK_CHARACTERS and chunk):
                yield kind, chunk
                chunk, characters = [], 0
            chunk.append(row)
            characters += size
        yield kind, chunk


_AUTOCOMMIT = "the connection is in autocommit: the event would not share a transaction with the rows it tells of; {}"
_STANDBY = "the server is a read-only standby: record the event on the primary"


def check(connection: Connection) -> None:
    """Refuse, without SQL, a connection that cannot carry an event."""
    if connection.dialect.name != "postgresql":
        raise RecordError(f"the outbox lives in PostgreSQL, but this connection speaks {connection.dialect.name}")
    if connection.closed:
        raise TransactionError("the connection is closed: no transaction can carry the event")
    for transaction in (connection.get_nested_transaction(), connection.get_transaction()):
        if transaction and (not transaction.is_active or getattr(transaction, "_is_prepared", False)):
            raise TransactionError("the connection's transaction is over: begin a new one to record events")
    pooled = connection.connection
    check_driver(pooled.dbapi_connection, pooled.driver_connection)


def check_driver(connection: Any, driver: Any) -> None:
    """Do the same for a DBAPI connection and the driver's own connection under it (often one object)."""
    info = getattr(driver, "info", None)
    status = getattr(info, "transaction_status", None)
    if status == _FAILED:
        raise TransactionError(ABORTED)
    if status == _UNKNOWN:
        raise TransactionError("the connection is closed: no transaction can carry the event")
    if getattr(connection, "autocommit", False) is True and status != _IN_TRANSACTION:
        raise TransactionError(_AUTOCOMMIT.format("use a transaction"))
    if getattr(driver, "read_only", None) is True or getattr(connection, "readonly", None) is True:
        raise TransactionError(READ_ONLY)
    if info is not None and info.parameter_status("in_hot_standby") == "on":
        raise TransactionError(_STANDBY)
