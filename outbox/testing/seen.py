"""What was recorded: the events that wait in a session's memory, and those in the database that it sees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine, text

from outbox._patterns import covers
from outbox._payload_value import payload_value
from outbox._text import brief, qualified_kind
from outbox.errors import ArgumentError, TargetError
from outbox.ids import text_id
from outbox.recording.bind import WRITE, may_wait
from outbox.recording.session import unwritten_rows
from outbox.recording.statements import Row
from outbox.recording.targets import is_psycopg, session_of
from outbox.testing.differences import differences, shown

__all__ = ["RecordedEvent", "assert_recorded", "nothing_recorded", "recorded"]

_SHOWN_MAX = 20
_COLUMNS = "outbox.text_id('evt', id), type, payload, key, tenant, available_at, priority, cast(metadata as text)"
_SELECT = f"select {_COLUMNS} from outbox.events order by seq"  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event that was recorded.

    data: its payload, parsed; the text itself where Python cannot hold it, such as 1e999. available_at: of one that
    waits as it was given, in UTC. unwritten: it is in the session's memory until the commit; others are in the
    database, in this transaction or committed. metadata: None where there is none.
    """

    id: str
    type: str
    data: Any
    key: str | None
    tenant: str
    available_at: datetime | timedelta | None
    priority: int
    metadata: dict[str, str] | None
    unwritten: bool


def recorded(target: Any, type: str = "*") -> list[RecordedEvent]:  # noqa: A002 - the word of the interface
    """Return the events that `target` sees, in their order: those in the database, then those that wait in memory.

    It neither flushes nor commits. On a session whose tests roll back, it shows this test's events and no others; on a
    database that keeps them, `empty()` takes them away between tests.

    Args:
        target: a session or connection, as `record()` takes them, or an Engine. Asynchronous code calls
            `await session.run_sync(recorded)`.
        type: a pattern as subscriptions have them: `order.placed`, `order.*`, `*`.

    Raises:
        TargetError: it is something else; the message says what to pass.
    """
    session = session_of(target)
    if session is None:
        return [event for event in _stored(target) if covers(type, event.type)]
    if not may_wait(session):
        raise TargetError(
            "target: an asynchronous session is looked at by `await session.run_sync(recorded)`; "
            "its database cannot be asked from here"
        )
    stored = _stored(session.connection(bind_arguments={"clause": WRITE}))
    return [event for event in (*stored, *map(_unwritten, unwritten_rows(session))) if covers(type, event.type)]


def assert_recorded(
    target: Any,
    type: str,  # noqa: A002
    *,
    where: Any = None,
    key: str | None = None,
    tenant: str | None = None,
    times: int | None = None,
) -> list[RecordedEvent]:
    """Return the recorded events that match. AssertionError unless there are some, or exactly `times`.

    Args:
        target: as `recorded()` takes it.
        type: the event's type, or a pattern.
        where: what its data must hold: of a dict, these members at least, at every depth; a function is asked, as in
            `{"cents": lambda cents: cents > 0}`; every other value must be equal.
        key: its key.
        tenant: its tenant.
        times: how many there must be.
    """
    __tracebackhide__ = True
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 0):
        raise ArgumentError(f"times: must be a number from 0 on, not {brief(times)}")
    wanted: dict[str, Any] = {} if where is None else {"data": where}
    wanted |= {name: value for name, value in (("key", key), ("tenant", tenant)) if value is not None}
    events = recorded(target)
    found = [event for event in events if covers(type, event.type) and not _differences(wanted, event)]
    if len(found) != times if times is not None else not found:
        raise AssertionError(_explained(type, wanted, times, found, events))
    return found


def nothing_recorded(target: Any, type: str = "*") -> Literal[True]:  # noqa: A002
    """Return True where no event of this type was recorded; else AssertionError, which shows them.

    `assert nothing_recorded(session)` and the call alone fail alike.
    """
    __tracebackhide__ = True
    if events := recorded(target, type):
        raise AssertionError(f"{_count(len(events))} recorded:\n{_listed(events)}")
    return True


def _stored(target: Any) -> list[RecordedEvent]:
    return [
        RecordedEvent(
            id=id_,
            type=type_,
            data=payload_value(payload),
            key=key,
            tenant=tenant,
            available_at=available_at,
            priority=priority,
            metadata=None if metadata is None else json.loads(metadata),
            unwritten=False,
        )
        for id_, type_, payload, key, tenant, available_at, priority, metadata in _rows(target)
    ]


def _rows(target: Any) -> Sequence[Any]:
    if isinstance(target, Engine):
        with target.connect() as connection:
            return connection.execute(text(_SELECT)).all()
    if isinstance(target, Connection):
        return target.execute(text(_SELECT)).all()
    if is_psycopg(target):
        from psycopg import Cursor, rows

        return Cursor(target, row_factory=rows.tuple_row).execute(_SELECT).fetchall()
    if callable(getattr(target, "cursor", None)) and hasattr(target, "settings_dict"):  # Django's connection
        with target.cursor() as cursor:
            cursor.execute(_SELECT)
            return list(cursor.fetchall())
    raise TargetError(f"target: pass a session, a connection or an Engine, not a {qualified_kind(target)}")


def _unwritten(row: Row) -> RecordedEvent:
    delay = row.delay_microseconds
    return RecordedEvent(
        id=text_id("evt", row.id),
        type=row.type,
        data=payload_value(row.payload),
        key=row.key,
        tenant=row.tenant,
        available_at=row.available_at if delay is None else timedelta(microseconds=delay),
        priority=row.priority,
        metadata=None if row.metadata is None else json.loads(row.metadata),
        unwritten=True,
    )


def _differences(wanted: Mapping[str, Any], event: RecordedEvent) -> list[str]:
    return differences(wanted, {"data": event.data, "key": event.key, "tenant": event.tenant})


def _explained(
    type_: str,
    wanted: Mapping[str, Any],
    times: int | None,
    found: Sequence[RecordedEvent],
    events: Sequence[RecordedEvent],
) -> str:
    """Say what was wanted, how many there were, what came nearest and why it is none, and what was recorded."""
    asked = ", ".join([type_, *(f"{name} = {shown(value)}" for name, value in wanted.items())])
    lines = [f"{asked}: wanted {'some' if times is None else times}, found {len(found) or 'none'}"]
    others = [event for event in events if covers(type_, event.type) and event not in found]
    if others:
        nearest = min(others, key=lambda event: len(_differences(wanted, event)))
        lines += [f"nearest: {_line(nearest)}", *(f"  {line}" for line in _differences(wanted, nearest))]
    lines.append(f"{_count(len(events))} recorded:" if events else "no event was recorded")
    return "\n".join([*lines, _listed(events)]).rstrip()


def _count(number: int) -> str:
    return "1 event was" if number == 1 else f"{number} events were"


def _listed(events: Sequence[RecordedEvent]) -> str:
    lines = [f"  {_line(event)}" for event in events[-_SHOWN_MAX:]]
    if len(events) > _SHOWN_MAX:
        lines.insert(0, f"  … {len(events) - _SHOWN_MAX} before")
    return "\n".join(lines)


def _line(event: RecordedEvent) -> str:
    more = [f"key = {event.key!r}"] if event.key is not None else []
    more += [f"tenant = {event.tenant!r}"] if event.tenant else []
    more += ["waits for the commit"] if event.unwritten else []
    return ", ".join([f"{event.type} {shown(event.data)}", *more])
