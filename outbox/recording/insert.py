"""Insert events: one statement for all rows, in the order given, on any kind of connection.

psycopg gets binary parameters (`%b`: 5 µs for a payload of 500 bytes; a text array takes 160 µs). Other drivers get
one JSON document. The state of the connection is checked before any SQL: a refusal then costs the caller nothing,
while an error from the server would end the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from itertools import repeat
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import InvalidRequestError, StatementError

from outbox.errors import OutboxError, PayloadTooLarge, RecordError, SchemaError, TransactionError

__all__ = ["Row", "awrite_asyncpg", "awrite_psycopg", "write", "write_psycopg"]

_CHUNK_ROWS = 5_000
_CHUNK_CHARACTERS = 8_000_000
_IN_TRANSACTION, _FAILED, _UNKNOWN = 2, 3, 4  # libpq's PQTRANS_INTRANS, _INERROR, _UNKNOWN


class Row(NamedTuple):
    """One event as it is inserted. At most one of the last two is set; the delay counts from the database's now."""

    id: UUID
    type: str
    key: str | None
    tenant: str
    payload: str
    available_at: datetime | None
    delay_microseconds: int | None

    def __repr__(self) -> str:
        return f"Row(id={self.id}, type={self.type!r})"


_INTO = "insert into outbox.events (id, type, key, tenant, payload, available_at) "
_FROM = (
    _INTO + "select id, type, key, tenant, payload, "  # noqa: S608 - constants only
    "coalesce(available_at, clock_timestamp() + delay * interval '1 microsecond') from "
)
_GIVEN = "with ordinality as given (id, type, key, tenant, payload, available_at, delay, place) order by place"
_ONE_VALUES = (
    "values ({0}::uuid, {1}::text, {2}::text, {3}::text, {4}::text, "
    "coalesce({5}::timestamptz, clock_timestamp() + {6}::bigint * interval '1 microsecond'))"
)
_PSYCOPG_ONE = _INTO + _ONE_VALUES.format(*repeat("%b", 7))
_ASYNCPG_ONE = _INTO + _ONE_VALUES.format(*(f"${number}" for number in range(1, 8)))
_PSYCOPG_MANY = (
    _FROM
    + "unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::bigint[]) "
    + _GIVEN
)
_JSON_MANY = text(
    _FROM + "rows from (json_to_recordset(cast(:rows as json)) as (id uuid, type text, key text, tenant text, "
    "payload text, available_at timestamptz, delay_microseconds bigint)) " + _GIVEN
)


def write(connection: Connection, rows: Sequence[Row]) -> None:
    """Insert the rows, at least one, in the connection's open transaction.

    Raises:
        TransactionError: the transaction could not carry them.
        SchemaError: the database has no outbox schema.
    """
    with _name_errors:
        _check(connection)
        insert = _insert_binary if connection.dialect.driver in ("psycopg", "psycopg_async") else _insert_json
        for chunk in _chunks(rows) if len(rows) > 1 else (rows,):
            insert(connection, chunk)


def write_psycopg(connection: Any, row: Row) -> None:
    """Insert one row on a raw psycopg connection, whatever its cursor and row factories.

    In pipeline mode, send what is queued first and wait for the answers: only then is it known whether a transaction is
    open, and whose error it is.
    """
    from psycopg import Cursor, rows

    with _sync_pipeline(connection):
        _check_driver(connection, connection)
    with _name_errors, _sync_pipeline(connection):
        Cursor(connection, row_factory=rows.tuple_row).execute(_PSYCOPG_ONE, row)


async def awrite_psycopg(connection: Any, row: Row) -> None:
    """Insert one row on a raw psycopg AsyncConnection, as `write_psycopg` does."""
    from psycopg import AsyncCursor, rows

    async with _sync_pipeline(connection):
        _check_driver(connection, connection)
    with _name_errors:
        async with _sync_pipeline(connection):
            await AsyncCursor(connection, row_factory=rows.tuple_row).execute(_PSYCOPG_ONE, row)


def _sync_pipeline(connection: Any) -> Any:
    """Return a block that empties the connection's pipeline, if there is one, when it begins and when it ends."""
    return connection.pipeline() if connection.info.pipeline_status else nullcontext()


async def awrite_asyncpg(connection: Any, row: Row) -> None:
    """Insert one row on a raw asyncpg connection, which must be in a transaction block."""
    if connection.is_closed():
        raise TransactionError("the connection is closed: no transaction can carry the event")
    if not connection.is_in_transaction():
        raise TransactionError(_AUTOCOMMIT.format("open one with `async with connection.transaction():`"))
    with _name_errors:
        await connection.execute(_ASYNCPG_ONE, *row)


def _insert_binary(connection: Connection, rows: Sequence[Row]) -> None:
    if len(rows) == 1:
        connection.exec_driver_sql(_PSYCOPG_ONE, tuple(rows[0]))
    else:
        connection.exec_driver_sql(_PSYCOPG_MANY, tuple(map(list, zip(*rows, strict=True))))


def _insert_json(connection: Connection, rows: Sequence[Row]) -> None:
    document = json.dumps([_document(row) for row in rows], ensure_ascii=False)
    connection.execute(_JSON_MANY, {"rows": document})


def _document(row: Row) -> dict[str, Any]:
    at = row.available_at
    return row._asdict() | {"id": str(row.id), "available_at": at and at.isoformat()}


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Split the rows by count and by size, so that no statement grows without bound."""
    start = characters = 0
    for place, row in enumerate(rows):
        size = len(row.payload)
        if place - start == _CHUNK_ROWS or (characters + size > _CHUNK_CHARACTERS and place > start):
            yield rows[start:place]
            start, characters = place, 0
        characters += size
    yield rows[start:]


_AUTOCOMMIT = "the connection is in autocommit: the event would not share a transaction with the rows it tells of; {}"
_READ_ONLY = "the transaction is read-only: record the event in one that can write"
_STANDBY = "the server is a read-only standby: record the event on the primary"
_ABORTED = "the transaction has failed and takes no more commands: roll it back first"


def _check(connection: Connection) -> None:
    """Refuse, without SQL, a connection that cannot carry an event."""
    if connection.dialect.name != "postgresql":
        raise RecordError(f"the outbox lives in PostgreSQL, but this connection speaks {connection.dialect.name}")
    if connection.closed:
        raise TransactionError("the connection is closed: no transaction can carry the event")
    for transaction in (connection.get_nested_transaction(), connection.get_transaction()):
        if transaction and (not transaction.is_active or getattr(transaction, "_is_prepared", False)):
            raise TransactionError("the connection's transaction is over: begin a new one to record events")
    pooled = connection.connection
    _check_driver(pooled.dbapi_connection, pooled.driver_connection)


def _check_driver(connection: Any, driver: Any) -> None:
    """Do the same for a DBAPI connection and the driver's own connection under it (often one object)."""
    info = getattr(driver, "info", None)
    status = getattr(info, "transaction_status", None)
    if status == _FAILED:
        raise TransactionError(_ABORTED)
    if status == _UNKNOWN:
        raise TransactionError("the connection is closed: no transaction can carry the event")
    if getattr(connection, "autocommit", False) is True and status != _IN_TRANSACTION:
        raise TransactionError(_AUTOCOMMIT.format("use a transaction"))
    if getattr(driver, "read_only", None) is True or getattr(connection, "readonly", None) is True:
        raise TransactionError(_READ_ONLY)
    if info is not None and info.parameter_status("in_hot_standby") == "on":
        raise TransactionError(_STANDBY)


class _NameErrors:
    """Raises an error of ours for the few causes that a user can fix. Every other error passes, without the payload."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, InvalidRequestError):
            raise TransactionError(f"no transaction can carry the event: {error}") from error
        if isinstance(error, Exception):
            _redact_payload(error)
            cause = getattr(error, "orig", None) or error
            if isinstance(cause, UnicodeEncodeError):  # it holds the payload, so it must not be the cause
                raise RecordError(f"the connection's encoding, {cause.encoding}, lacks a character: use UTF8") from None
            if (ours := _our_error(cause)) is not None:
                raise ours from cause


_name_errors = _NameErrors()  # a context manager made from a generator takes three times as long


def _redact_payload(error: BaseException) -> None:
    """Redact what prints the payload in an error and its causes: the parameters, and PostgreSQL's "Failing row"."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    details = [detail for link in chain if (detail := _detail(link))]
    for link in chain:
        if isinstance(link, StatementError):
            link.hide_parameters = True
        if getattr(link, "detail", None):
            link.detail = None  # type: ignore[attr-defined] # asyncpg's
        link.args = tuple(_redact(details, part) for part in link.args)


def _detail(error: BaseException) -> str | None:
    """Return the server's DETAIL from an error of psycopg, psycopg2 or asyncpg."""
    return getattr(getattr(error, "diag", None), "message_detail", None) or getattr(error, "detail", None)


def _redact(details: Sequence[str], part: Any) -> Any:
    for detail in details:
        part = part.replace(detail, "(redacted)") if isinstance(part, str) else part
    return part


def _constraint(error: BaseException) -> str | None:
    """Return the constraint that was broken, from an error of psycopg, psycopg2 or asyncpg."""
    return getattr(getattr(error, "diag", None), "constraint_name", None) or getattr(error, "constraint_name", None)


def _our_error(error: BaseException) -> OutboxError | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state in ("42P01", "3F000", "42703"):
        return SchemaError("the outbox schema is missing or old in this database: run `relay migrate`")
    if state == "23514" and _constraint(error) == "payload_is_not_too_large":
        return PayloadTooLarge(
            "data: the database takes no payload of this size, though this Outbox's max_payload_bytes allows it;"
            " raise the database's own bound, which holds for SQL too: update outbox.settings set value = …"
            " where name = 'max_payload_bytes'"
        )
    if state == "25006":
        return TransactionError(_READ_ONLY)
    if state == "25P02":
        return TransactionError(_ABORTED)
    return None
