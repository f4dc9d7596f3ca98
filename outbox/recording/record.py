"""Record an event in the transaction that changes the rows it is about.

Everything is validated and serialised at once, in the caller, before any SQL. So a refused event leaves the transaction
as it was, and later changes of the data have no effect. Nothing here flushes, commits or catches an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from sqlalchemy import Connection

from outbox._text import MAX_TENANT_BYTES, MAX_TYPE_BYTES, brief, complaint
from outbox.errors import ArgumentError, RecordError
from outbox.ids import new_uuid7, text_id
from outbox.recording import targets as _targets
from outbox.recording.idempotency import checked_key, content_of, id_of_key
from outbox.recording.insert import Row, awrite_asyncpg, awrite_psycopg, write, write_psycopg
from outbox.recording.payload import encode
from outbox.recording.session import remember
from outbox.recording.trace import captured_trace, checked_trace

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    Target: TypeAlias = (
        Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any] | Connection | psycopg.Connection[Any]
    )
else:
    Target = Any  # the classes above are not loaded here; annotations that are read at run time must resolve

__all__ = ["Event", "Outbox", "arecord", "checked_type", "record"]

_TYPE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_RESERVED = "relay."
_MAX_KEY_BYTES = 1024
_MAX_DELAY = timedelta(days=36_525)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event. Others see it once its transaction has committed, and only then.

    `id` is the `webhook-id` of every delivery (`evt_…`); `available_at` is as given to `record()`, also where an
    idempotency key found the event recorded already.
    """

    id: str
    type: str
    key: str | None
    tenant: str
    available_at: datetime | timedelta | None


class Outbox:
    """The library's settings. The functions `record` and `arecord` of the module are those of a default instance.

    Args:
        max_payload_bytes: the longest JSON text of an event's data, in bytes of UTF-8. ArgumentError where it is none.
            The database has the same bound for whatever inserts, in outbox.settings: raise that one too.
        baggage: whether OpenTelemetry's baggage is kept with an event and sent to every receiver of it.
    """

    def __init__(self, *, max_payload_bytes: int = 262_144, baggage: bool = False) -> None:
        if type(max_payload_bytes) is not int or max_payload_bytes < 1:
            raise ArgumentError(f"max_payload_bytes: must be a positive integer, not {brief(max_payload_bytes)}")
        if type(baggage) is not bool:
            raise ArgumentError(f"baggage: must be True or False, not {brief(baggage)}")
        self.max_payload_bytes = max_payload_bytes
        self.baggage = baggage

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
    ) -> Event:
        """Record an event in the transaction of a session or connection, and return it.

        On a session (SQLAlchemy's Session, AsyncSession, either scoped session, and subclasses) the event waits in
        memory and is written just before COMMIT, after the flush; a rolled-back savepoint drops it. On a SQLAlchemy
        Connection or a psycopg Connection it is written at once. If `data` holds a key that the database makes, flush
        first.

        Args:
            session_or_connection: what holds the transaction.
            type: dotted words of letters, digits and `_`, e.g. `order.created`; at most 128 bytes, and not `relay.…`.
            data: JSON types, aware datetime, date, UUID, Decimal (a number with its exact digits), Enum (its value),
                dataclasses, pydantic models, or `RawJSON`; a str is a JSON string.
            key: what the event is about, e.g. an order's id; at most 1024 bytes.
            tenant: whose event it is; at most 256 bytes.
            available_at: the earliest time of delivery; a timedelta counts from the database's now.
            idempotency_key: at most 256 bytes. While the database knows the key (7 days, in outbox.settings), the same
                tenant and key stand for one event: it is returned, and nothing is written. Its id is made of the two.
            priority: 0 to 3; the higher comes first among what is due.
            trace: W3C's traceparent, and tracestate and baggage if need be; without it, OpenTelemetry's active trace.

        Raises:
            PayloadError: the data has no exact JSON form, or is too large.
            TransactionError: no transaction can carry the event.
            TargetError: the first argument is of another kind; the message says what to use.
            RecordError: another argument was refused, or the idempotency key was used with another type, key or data.
                Of two transactions that use it at the same time, the second learns that only when it commits, and so
                does an AsyncSession outside run_sync().
            SchemaError: the outbox schema is missing. On a session, the commit raises it.
        """
        event, row = self._event(type, data, key, tenant, available_at, idempotency_key, priority, trace)
        if (session := _targets.session_of(session_or_connection)) is not None:
            remember(session, row)
        elif isinstance(session_or_connection, Connection):
            write(session_or_connection, [row])
        elif _targets.is_psycopg(session_or_connection):
            write_psycopg(session_or_connection, row)
        else:
            _targets.refuse(session_or_connection)
        return event

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
    ) -> Event:
        """Record an event on a raw psycopg AsyncConnection or asyncpg connection; written at once.

        For everything else, an AsyncSession too, call `record()`. Arguments and errors are those of `record()`.
        """
        event, row = self._event(type, data, key, tenant, available_at, idempotency_key, priority, trace)
        if _targets.is_psycopg_async(connection):
            await awrite_psycopg(connection, row)
        elif _targets.is_asyncpg(connection):
            await awrite_asyncpg(connection, row)
        else:
            _targets.refuse(connection)
        return event

    def _event(
        self,
        type: str,  # noqa: A002
        data: object,
        key: str | None,
        tenant: str,
        available_at: datetime | timedelta | None,
        idempotency_key: str | None,
        priority: int,
        trace: Mapping[str, str] | None,
    ) -> tuple[Event, Row]:
        """Check the arguments; return the event for the caller and its row for the database."""
        type = checked_type(type)  # noqa: A001
        if key is not None:
            key = _checked_text("key", key, _MAX_KEY_BYTES)
        tenant = _checked_text("tenant", tenant, MAX_TENANT_BYTES) if tenant != "" else ""
        if tenant == "*":
            raise RecordError("tenant: '*' stands for every tenant; an event belongs to one")
        at, delay = (None, None) if available_at is None else _checked_time(available_at)
        priority = _checked_priority(priority)
        given = None if trace is None else checked_trace(trace)
        payload = encode(data, self.max_payload_bytes)
        if idempotency_key is None:
            id = new_uuid7()  # noqa: A001
            kept = self._trace(type, id) if trace is None else given
            row = Row(id, type, key, tenant, payload, at, delay, priority, kept)
        else:
            idempotency_key = checked_key(idempotency_key)
            id = id_of_key(tenant, idempotency_key)  # noqa: A001
            kept = self._trace(type, id) if trace is None else given
            content = content_of(type, key, payload)
            row = Row(id, type, key, tenant, payload, at, delay, priority, kept, idempotency_key, content)
        return Event(text_id("evt", id), type, key, tenant, available_at), row

    def _trace(self, type: str, id: UUID) -> str | None:  # noqa: A002
        return captured_trace(baggage=self.baggage, recorded=(type, text_id("evt", id)))


def checked_type(value: object) -> str:
    """Return an event's type as text. Raises RecordError when it is not dotted words, too long, or the relay's own."""
    if not isinstance(value, str) or len(value) > MAX_TYPE_BYTES or not _TYPE.fullmatch(value):
        given = ascii(value[:60]) if isinstance(value, str) else type(value).__qualname__
        raise RecordError(
            f"type: {given} is not dotted words of letters, digits and _, like 'order.created', "
            f"of at most {MAX_TYPE_BYTES} bytes"
        )
    if value.startswith(_RESERVED):
        raise RecordError(
            f"type: {brief(value)} begins with {_RESERVED}, which is for events about the relay itself; "
            "begin it with another word"
        )
    return str.__str__(value)


def _checked_text(name: str, value: object, max_bytes: int) -> str:
    if refused := complaint(name, value, max_bytes):
        raise RecordError(refused)
    return str.__str__(value)


def _checked_priority(value: object) -> int:
    if type(value) is not int or not 0 <= value <= 3:
        raise RecordError(f"priority: must be 0, 1, 2 or 3 (the most urgent), not {brief(value)}")
    return value


def _checked_time(value: object) -> tuple[datetime | None, int | None]:
    """Return an instant in UTC, or a delay in microseconds."""
    if isinstance(value, timedelta):
        if not timedelta(0) <= value <= _MAX_DELAY:
            raise RecordError(f"available_at: a timedelta must be between 0 and {_MAX_DELAY.days} days")
        return None, value // _MICROSECOND
    if not isinstance(value, datetime):
        raise RecordError(f"available_at: must be an aware datetime or a timedelta, not {type(value).__qualname__}")
    if value.utcoffset() is None:
        raise RecordError("available_at: a datetime without time zone is ambiguous; give it a tzinfo")
    try:
        return value.astimezone(UTC), None
    except OverflowError:
        raise RecordError("available_at: is outside the years 1 to 9999 in UTC") from None


_default = Outbox()
record = _default.record
arecord = _default.arecord
