"""Keep the events that are recorded on a SQLAlchemy session, and write them just before COMMIT.

The innermost transaction that is open when an event is recorded owns it. A savepoint that is rolled back drops its
events; one that is released hands them to its parent. All are written in one statement in `before_commit`, after a
flush: the locks of the business rows are held by then, so two writers of one key draw sequence numbers in the order in
which they commit.

SQLAlchemy's events force these rules. Each one that is broken loses an event, or keeps one that should be dropped:

- `after_flush` is not used: it does not fire when nothing is dirty, and an outer event that is written inside a
  savepoint is lost with the savepoint.
- `before_commit` fires ahead of commit's own flush, and also for a released savepoint. A listener may record during
  that flush, so the session is flushed here first.
- An event that is recorded after `before_commit` has run is written at once: nothing else would write it.
- The buffer is kept in the session itself. Its entries refer to their session, so a table of sessions, even with weak
  keys, would keep every forgotten session and its connection.
- A row that may be refused without harm (`record(on_error="log")`) is written in a savepoint of the connection, which
  the session does not see. It keeps its place among the others, so those before and behind it are statements of their
  own.
- `after_transaction_end` decides who owns what; `after_commit` has noted whether the transaction ended well. The others
  will not do: `after_soft_rollback` comes later, and close() fires neither commit nor rollback. So a session that is
  closed, or forgotten, while it holds events is told of (lost.py); one that an exception ends need not be.

Entries form a stack: those of an ended transaction are at its end, and written ones come before the others. So the end
of a savepoint looks at its own entries only, however many wait.

Importing this module registers listeners on `sqlalchemy.orm.Session`: a session may be in the middle of its commit when
something is recorded on it for the first time.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, event, inspect
from sqlalchemy.orm import Session, SessionTransaction

from outbox.errors import TransactionError
from outbox.recording.bind import WRITE, checked_bind, may_wait
from outbox.recording.boundaries import boundary_above, innermost, is_boundary
from outbox.recording.idempotency import other_content
from outbox.recording.insert import Row, refuse_other_content
from outbox.recording.session_events import Buffer, Entry

__all__ = ["remember", "remember_all", "unwritten_rows"]


_KEY = "_outbox_buffer"


def _buffer_of(session: Session) -> Buffer:
    buffer: Buffer = vars(session).get(_KEY) or vars(session).setdefault(_KEY, Buffer())
    return buffer


def unwritten_rows(session: Session) -> list[Row]:
    """Return the rows that wait for the session's commit. Whoever looks at them knows of them: no warning follows."""
    buffer: Buffer | None = vars(session).get(_KEY)
    if buffer is None:
        return []
    buffer.settled = True
    return [*buffer.unwritten()]


def remember(session: Session, row: Row, *, leniently: bool = False) -> None:
    """Keep a row until just before the session's transaction commits.

    `leniently`: what the database says against it is then logged, not raised; nor is the database asked before.

    Raises:
        TransactionError: the session has no transaction that can still take work.
        RecordError: the session has no PostgreSQL bind, or the idempotency key was used for other content.
    """
    buffer, owner = _joined(session)
    if row.idempotency_key is not None and _is_recorded(session, buffer, row, may_ask=not leniently):
        if not leniently:
            buffer.refuse_none_of(row)
        return
    buffer.entries.append(Entry(row, owner, None, leniently))
    _write_or_watch(session, buffer)


def remember_all(session: Session, rows: Sequence[Row]) -> None:
    """Keep rows without an idempotency key until just before the session's transaction commits.

    Raises:
        TransactionError: the session has no transaction that can still take work.
        RecordError: the session has no PostgreSQL bind.
    """
    if rows:
        buffer, owner = _joined(session)
        buffer.entries += [Entry(row, owner) for row in rows]
        _write_or_watch(session, buffer)


def _joined(session: Session) -> tuple[Buffer, SessionTransaction]:
    """Return what keeps the session's events, and the transaction or savepoint that owns those recorded now."""
    buffer: Buffer | None = vars(session).get(_KEY)
    engine = buffer.engine if buffer is not None and buffer.entries else checked_bind(session)
    owner = innermost(session) or _begin(session)
    if not owner.is_active:
        raise TransactionError(
            "the session's transaction takes no more work: it is prepared, ending, or must be rolled back first"
        )
    if buffer is None:
        buffer = _buffer_of(session)
    buffer.engine = engine
    return buffer, owner


def _write_or_watch(session: Session, buffer: Buffer) -> None:
    """Write at once what is recorded during the commit; at other times see to it that no commit passes the session."""
    if buffer.committing:
        buffer.write(session)
    else:
        buffer.watch()


def _is_recorded(session: Session, buffer: Buffer, row: Row, *, may_ask: bool) -> bool:
    """Tell whether the event of this idempotency key is recorded already: in this transaction, or committed.

    Raises RecordError where it has other content. Code that awaits cannot ask the database from here, unless it came by
    run_sync(); what is committed is then found when the session commits.
    """
    if row.id in buffer.once:
        if buffer.once[row.id] != row.content:
            raise other_content(row.idempotency_key or "")
        return True
    may_ask = may_ask and may_wait(session)
    if may_ask and refuse_other_content(session.connection(bind_arguments={"clause": WRITE}), row):
        return True
    buffer.once[row.id] = row.content
    return False


def _begin(session: Session) -> SessionTransaction:
    if not session.autobegin:
        raise TransactionError("no transaction has begun on this session: call session.begin() first")
    return session.begin()


@event.listens_for(Session, "after_begin")
def _after_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.parent is None:
        buffer = _buffer_of(session)
        buffer.begun.append((connection, connection.get_nested_transaction() or connection.get_transaction()))
        buffer.watch()


@event.listens_for(Session, "after_flush")
def _after_flush(session: Session, _context: object) -> None:
    """Note which engines this flush wrote to. With one engine that is plain; with several, the classes tell."""
    buffer = _buffer_of(session)
    engines = {connection.engine for connection, _ in buffer.begun}
    if len(engines) > 1:
        changed = {inspect(one).mapper for one in (*session.new, *session.dirty, *session.deleted)}
        engines = {session.get_bind(mapper).engine for mapper in changed}
    buffer.flushed |= engines


@event.listens_for(Session, "before_commit")
def _before_commit(session: Session) -> None:
    if not session._flushing:  # noqa: SLF001 - a savepoint may end inside a flush; SQLAlchemy itself checks this
        session.flush()
    buffer = _buffer_of(session)
    buffer.settled |= session.get_nested_transaction() is None  # from here on, whoever commits sees an error
    buffer.write(session)
    buffer.committing.append(innermost(session))


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    buffer: Buffer | None = vars(session).get(_KEY)
    if buffer is not None:
        buffer.committed = innermost(session)


@event.listens_for(Session, "after_rollback")
def _after_rollback(session: Session) -> None:
    buffer: Buffer | None = vars(session).get(_KEY)
    if buffer is not None and session.get_nested_transaction() is None:
        buffer.settled = True


@event.listens_for(Session, "after_transaction_end")
def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if not is_boundary(transaction):
        return
    buffer: Buffer | None = vars(session).get(_KEY)
    if buffer is None:
        return
    parent = boundary_above(transaction)
    if parent is None:
        del vars(session)[_KEY]
        buffer.end(committed=buffer.committed is transaction)
        return
    if buffer.committed is transaction:
        buffer.hand_up(transaction, parent)
    else:
        buffer.drop(transaction)
