"""Record an event in the transaction that changes the rows it is about.

Everything is validated and serialised at once, in the caller, before any SQL. So a refused event leaves the transaction
as it was, and later changes of the data have no effect. Nothing here flushes, commits or catches an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, Unpack
from uuid import UUID

from sqlalchemy import Connection

from outbox._text import MAX_TENANT_BYTES, brief
from outbox.errors import ArgumentError, RecordError, TransactionError
from outbox.ids import new_uuid7, text_id
from outbox.recording import lenient_write as _leniently
from outbox.recording import targets as _targets
from outbox.recording.arguments import (
    check_on_error,
    checked_metadata,
    checked_priority,
    checked_text,
    checked_time,
    checked_type,
)
from outbox.recording.current import current_session
from outbox.recording.declared import OF_PROCESS, Declared
from outbox.recording.event import Event, EventOptions
from outbox.recording.idempotency import checked_key, content_of, id_of_key
from outbox.recording.insert import Row, awrite_asyncpg, awrite_psycopg, write, write_psycopg
from outbox.recording.payload import encode
from outbox.recording.refusals import refused
from outbox.recording.session import remember
from outbox.recording.silence import is_silenced
from outbox.recording.targets import Target
from outbox.recording.trace import captured_trace, checked_trace

__all__ = ["Event", "Outbox", "arecord", "emit", "record", "row_of"]

_Options: TypeAlias = tuple[
    str | None, str, datetime | timedelta | None, str | None, int, Mapping[str, str] | None, Mapping[str, str] | None
]  # from key to metadata
_MAX_KEY_BYTES = 1024


class Outbox:
    """The library's settings. The functions `record` and `arecord` of the module are those of a default instance.

    Args:
        max_payload_bytes: the longest JSON text of an event's data, in bytes of UTF-8. ArgumentError where it is none.
            The database has the same bound for whatever inserts, in outbox.settings: raise that one too.
        baggage: whether OpenTelemetry's baggage is kept with an event and sent to every receiver of it.
        catalogue: the event types that it knows, an `outbox.Catalogue`; default the process's own.
    """

    def __init__(
        self, *, max_payload_bytes: int = 262_144, baggage: bool = False, catalogue: Declared | None = None
    ) -> None:
        if type(max_payload_bytes) is not int or max_payload_bytes < 1:
            raise ArgumentError(f"max_payload_bytes: must be a positive integer, not {brief(max_payload_bytes)}")
        if type(baggage) is not bool:
            raise ArgumentError(f"baggage: must be True or False, not {brief(baggage)}")
        if catalogue is not None and not isinstance(catalogue, Declared):
            raise ArgumentError(f"catalogue: must be an outbox.Catalogue, not {brief(catalogue)}")
        self.max_payload_bytes = max_payload_bytes
        self.baggage = baggage
        self._declared = OF_PROCESS if catalogue is None else catalogue

    def record(
        self,
        session_or_connection: Target,
        /,
        type: str,  # noqa: A002 - the event's type is called type everywhere
        data: object,
        *,
        key: str | None = None,
        tenant: str = "",
        available_at: datetime | timedelta | None = None,
        idempotency_key: str | None = None,
        priority: int = 0,
        trace: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        on_error: Literal["raise", "log"] = "raise",
    ) -> Event:
        """Record an event in the transaction of a session or connection, and return it.

        On a session (SQLAlchemy's Session, AsyncSession, either scoped session, and subclasses) the event waits in
        memory and is written just before COMMIT, after the flush; a rolled-back savepoint drops it. On a SQLAlchemy
        Connection, a psycopg Connection or Django's `connection` (in transaction.atomic()) it is written at once. If
        `data` holds a key that the database makes, flush first.

        Args:
            session_or_connection: what holds the transaction.
            type: dotted words of letters, digits and `_`, e.g. `order.created`; at most 128 bytes, and not `relay.…`.
            data: JSON types, aware datetime, date, UUID, Decimal (a number with its exact digits), Enum (its value),
                dataclasses, pydantic models, Django's lazy texts, or `RawJSON`; a str is a JSON string.
            key: what the event is about, e.g. an order's id; at most 1024 bytes.
            tenant: whose event it is; at most 256 bytes.
            available_at: the earliest time of delivery; a timedelta counts from the database's now.
            idempotency_key: at most 256 bytes. While the database knows the key (7 days, in outbox.settings), the same
                tenant and key stand for one event: it is returned, and nothing is written. Its id is made of the two.
            priority: 0 to 3; the higher comes first among what is due.
            trace: W3C's traceparent, and tracestate and baggage if need be; without it, OpenTelemetry's active trace.
            metadata: text by name, such as who did it; at most 8192 bytes as JSON. Filters and transformations see it;
                receivers do not, unless a transformation puts it into the body.
            on_error: "log" never fails the caller for an event: what is refused, here or by the database, is logged
                (logger "outbox") and counted (`outbox.refused_events()`). It is written in a savepoint of its own.

        Raises:
            PayloadError: the data has no exact JSON form, is too large, or is not what the catalogue declares.
            TransactionError: no transaction can carry the event.
            TargetError: the first argument is of another kind; the message says what to use.
            RecordError: another argument was refused, or the idempotency key was used with another type, key or data.
                Of two transactions that use it at the same time, the second learns that only when it commits, and so
                does an AsyncSession outside run_sync().
            SchemaError: the outbox schema is missing. On a session, the commit raises it.
        """
        if on_error != "raise":
            options = (key, tenant, available_at, idempotency_key, priority, trace, metadata)
            return self._record_or_log(session_or_connection, type, data, options, on_error)
        row, recorded = self._row(type, data, key, tenant, available_at, idempotency_key, priority, trace, metadata)
        event = _event_of(row, available_at, recorded)
        if not recorded:
            return event
        if (session := _targets.session_of(session_or_connection)) is not None:
            remember(session, row)
        elif isinstance(session_or_connection, Connection):
            write(session_or_connection, [row])
        elif _targets.is_psycopg(session_or_connection):
            write_psycopg(session_or_connection, row)
        elif _targets.is_django(session_or_connection):
            from outbox.django.writing import write_django  # it loads Django, which is there if its connection is

            write_django(session_or_connection, row)
        else:
            _targets.refuse(session_or_connection)
        return event

    def emit(
        self,
        type: str,  # noqa: A002
        data: object,
        **options: Unpack[EventOptions],
    ) -> Event:
        """Record an event on the session in use: `record(current_session(), type, data, …)`, with its other arguments.

        The session is that of the innermost `use_session()` block, else what `sessions_from()` was given finds. It
        needs no event loop, and works inside of one.

        Raises:
            TransactionError: no session is in use here.
            RecordError: what `record()` raises.
        """
        try:
            session = current_session()
        except TransactionError as error:
            if options.get("on_error", "raise") != "log":
                raise
            return refused(type, options.get("key"), options.get("tenant", ""), options.get("available_at"), error)
        return self.record(session, type, data, **options)

    def _record_or_log(
        self,
        target: Any,
        type: str,  # noqa: A002
        data: object,
        options: _Options,
        on_error: object,
    ) -> Event:
        """Record an event, or log why it was not. Whatever goes wrong with it is no error of the caller."""
        check_on_error(on_error)
        try:
            row, recorded = self._row(type, data, *options)
            if recorded:
                _leniently.write(target, row)
        except Exception as error:  # noqa: BLE001 - a property of the data may raise anything
            key, tenant, available_at, *_ = options
            return refused(type, key, tenant, available_at, error)
        return _event_of(row, options[2], recorded)

    async def arecord(
        self,
        connection: Any,
        /,
        type: str,  # noqa: A002
        data: object,
        *,
        key: str | None = None,
        tenant: str = "",
        available_at: datetime | timedelta | None = None,
        idempotency_key: str | None = None,
        priority: int = 0,
        trace: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        on_error: Literal["raise", "log"] = "raise",
    ) -> Event:
        """Record an event on a raw psycopg AsyncConnection or asyncpg connection; written at once.

        For everything else, an AsyncSession too, call `record()`. Arguments and errors are those of `record()`.
        """
        if on_error != "raise":
            options = (key, tenant, available_at, idempotency_key, priority, trace, metadata)
            return await self._arecord_or_log(connection, type, data, options, on_error)
        row, recorded = self._row(type, data, key, tenant, available_at, idempotency_key, priority, trace, metadata)
        event = _event_of(row, available_at, recorded)
        if not recorded:
            return event
        if _targets.is_psycopg_async(connection):
            await awrite_psycopg(connection, row)
        elif _targets.is_asyncpg(connection):
            await awrite_asyncpg(connection, row)
        else:
            _targets.refuse(connection)
        return event

    async def _arecord_or_log(
        self,
        connection: Any,
        type: str,  # noqa: A002
        data: object,
        options: _Options,
        on_error: object,
    ) -> Event:
        check_on_error(on_error)
        try:
            row, recorded = self._row(type, data, *options)
            if recorded:
                await _leniently.awrite(connection, row)
        except Exception as error:  # noqa: BLE001 - as in _record_or_log
            key, tenant, available_at, *_ = options
            return refused(type, key, tenant, available_at, error)
        return _event_of(row, options[2], recorded)

    def _row(
        self,
        type: str,  # noqa: A002
        data: object,
        key: str | None,
        tenant: str,
        available_at: datetime | timedelta | None,
        idempotency_key: str | None,
        priority: int,
        trace: Mapping[str, str] | None,
        metadata: Mapping[str, str] | None,
    ) -> tuple[Row, bool]:
        """Check the arguments; return the event's row for the database, and whether it is to be recorded."""
        type = checked_type(type)  # noqa: A001
        if key is not None:
            key = checked_text("key", key, _MAX_KEY_BYTES)
        tenant = checked_text("tenant", tenant, MAX_TENANT_BYTES) if tenant != "" else ""
        if tenant == "*":
            raise RecordError("tenant: '*' stands for every tenant; an event belongs to one")
        at, delay = (None, None) if available_at is None else checked_time(available_at)
        priority = checked_priority(priority)
        silent = is_silenced(type)
        given = None if trace is None else checked_trace(trace)
        told = None if metadata is None else checked_metadata(metadata)
        write_declared, most = self._declared.write, self.max_payload_bytes
        payload = encode(data, most) if write_declared is None else write_declared(type, data, most)
        if idempotency_key is None:
            id = new_uuid7()  # noqa: A001
            kept = self._trace(type, id) if trace is None and not silent else given
            row = Row(id, type, key, tenant, payload, at, delay, priority, kept, told)
        else:
            idempotency_key = checked_key(idempotency_key)
            id = id_of_key(tenant, idempotency_key)  # noqa: A001
            kept = self._trace(type, id) if trace is None and not silent else given
            content = content_of(type, key, payload)
            row = Row(id, type, key, tenant, payload, at, delay, priority, kept, told, idempotency_key, content)
        return row, not silent

    def _trace(self, type: str, id: UUID) -> str | None:  # noqa: A002
        return captured_trace(baggage=self.baggage, recorded=(type, id))


def _event_of(row: Row, available_at: datetime | timedelta | None, recorded: bool) -> Event:  # noqa: FBT001 - a field
    return Event(text_id("evt", row.id), row.type, row.key, row.tenant, available_at, recorded)


_default = Outbox()
record = _default.record
emit = _default.emit
arecord = _default.arecord


def row_of(type_: str, data: object, key: str | None, tenant: str, priority: int) -> Row | None:
    """Return what is written of an event, for a caller who records many at once; None where it is silenced."""
    row, recorded = _default._row(type_, data, key, tenant, None, None, priority, None, None)  # noqa: SLF001 - of this file
    return row if recorded else None
