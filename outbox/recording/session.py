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
- `after_transaction_end` decides who owns what; `after_commit` has noted whether the transaction ended well. The others
  will not do: `after_soft_rollback` comes later, and close() fires neither commit nor rollback.

Entries form a stack: those of an ended transaction are at its end, and written ones come before the others. So the end
of a savepoint looks at its own entries only, however many wait.

Importing this module registers listeners on `sqlalchemy.orm.Session`: a session may be in the middle of its commit when
something is recorded on it for the first time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, Engine, event, inspect
from sqlalchemy.orm import Session, SessionTransaction

from outbox.errors import TransactionError
from outbox.recording.bind import WRITE, checked_bind, may_wait
from outbox.recording.commit_guard import CommitGuard
from outbox.recording.idempotency import other_content
from outbox.recording.insert import Row, refuse_other_content, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Transaction

__all__ = ["remember"]


@dataclass(slots=True)
class _Entry:
    row: Row
    owner: SessionTransaction
    written_in: SessionTransaction | None = None


@dataclass(slots=True)
class _Buffer:
    """The events of one session's open transaction. The first `written` entries are in the database.

    `committing` has an item for each `before_commit` whose transaction has not ended yet: the innermost transaction at
    that time. It is the one that commits, or one inside it that was left open. `begun` has the session's connections,
    each with the transaction or savepoint that the session has joined. `engine` is the one that carries the events;
    `flushed` are those that its rows were flushed to. `once` has the content of each event with an idempotency key.
    """

    entries: list[_Entry] = field(default_factory=list)
    written: int = 0
    writing: bool = False
    committed: SessionTransaction | None = None
    committing: list[SessionTransaction | None] = field(default_factory=list)
    begun: list[tuple[Connection, Transaction | None]] = field(default_factory=list)
    engine: Engine | None = None
    flushed: set[Engine] = field(default_factory=set)
    once: dict[UUID, bytes] = field(default_factory=dict)
    guard: CommitGuard | None = None

    def waiting(self) -> Sequence[Row]:
        """Return the rows that are not written yet, or are being written."""
        return [entry.row for entry in self.entries[self.written :]]

    def write(self, session: Session) -> None:
        """Write the waiting rows."""
        rows = self.waiting()
        if not rows:
            return
        self.writing = True
        try:
            connection = session.connection(bind_arguments={"clause": WRITE})
            self._require_flushed_to(connection.engine, session)
            write(connection, rows)
        finally:
            self.writing = False
        here = _innermost(session)
        for entry in self.entries[self.written :]:
            entry.written_in = here
        self.written = len(self.entries)

    def _require_flushed_to(self, engine: Engine, session: Session) -> None:
        """Refuse events in another transaction than the rows they tell of; a commit in two phases ends both alike.

        Binds that somebody declared for classes and for the events' table are meant so; a get_bind() may be mistaken.
        """
        routed = type(session).get_bind is not Session.get_bind
        if routed and self.flushed and engine not in self.flushed and not session.twophase:
            raise TransactionError(
                f"the session's rows went to {_address(self.flushed.pop())} and its events would go to"
                f" {_address(engine)}, another transaction: let get_bind() return the rows' engine for"
                " clause=insert(outbox.events_table) too"
            )

    def watch(self) -> None:
        """While rows wait, refuse commits that bypass the session on the connection that will carry them."""
        if self.guard is None and not self.writing and self.written < len(self.entries):
            for connection, joined in self.begun:
                if connection.engine is self.engine:
                    self.guard = CommitGuard(connection, joined, self.waiting)

    def end(self) -> None:
        """Forget everything, unless the session left its transaction open, with rows waiting for it."""
        if self.guard is not None:
            if self.written < len(self.entries) and self.guard.is_left_open():
                return
            self.guard.stop()
        self.entries.clear()

    def hand_up(self, ended: SessionTransaction, parent: SessionTransaction) -> None:
        """Give the parent what a released savepoint owned and what was written in it."""
        for place in range(len(self.entries) - 1, -1, -1):
            if self.entries[place].owner is not ended:
                break
            self.entries[place].owner = parent
        for place in range(self.written - 1, -1, -1):
            if self.entries[place].written_in is not ended:
                break
            self.entries[place].written_in = parent
        if self.committing:
            self.committing.pop()
        if parent.parent is None:  # no savepoint can undo these rows any more
            del self.entries[: self.written]
            self.written = 0

    def drop(self, ended: SessionTransaction) -> None:
        """Forget what a rolled-back savepoint owned. Rows of other owners that were written in it wait again."""
        self.committing = [innermost for innermost in self.committing if innermost is not ended]
        while self.entries and self.entries[-1].owner is ended:
            self.once.pop(self.entries.pop().row.id, None)
        self.written = min(self.written, len(self.entries))
        while self.written and self.entries[self.written - 1].written_in is ended:
            self.written -= 1


_KEY = "_outbox_buffer"


def _buffer_of(session: Session) -> _Buffer:
    buffer: _Buffer = vars(session).get(_KEY) or vars(session).setdefault(_KEY, _Buffer())
    return buffer


def remember(session: Session, row: Row) -> None:
    """Keep a row until just before the session's transaction commits.

    Raises:
        TransactionError: the session has no transaction that can still take work.
        RecordError: the session has no PostgreSQL bind, or the idempotency key was used for other content.
    """
    buffer: _Buffer | None = vars(session).get(_KEY)
    engine = buffer.engine if buffer is not None and buffer.entries else checked_bind(session)
    owner = _innermost(session) or _begin(session)
    if not owner.is_active:
        raise TransactionError(
            "the session's transaction takes no more work: it is prepared, ending, or must be rolled back first"
        )
    if buffer is None:
        buffer = _buffer_of(session)
    if row.idempotency_key is not None and _is_recorded(session, buffer, row):
        return
    buffer.engine = engine
    buffer.entries.append(_Entry(row, owner))
    if buffer.committing:
        buffer.write(session)
    else:
        buffer.watch()


def _is_recorded(session: Session, buffer: _Buffer, row: Row) -> bool:
    """Tell whether the event of this idempotency key is recorded already: in this transaction, or committed.

    Raises RecordError where it has other content. Code that awaits cannot ask the database from here, unless it came by
    run_sync(); what is committed is then found when the session commits.
    """
    if row.id in buffer.once:
        if buffer.once[row.id] != row.content:
            raise other_content(row.idempotency_key or "")
        return True
    if may_wait(session) and refuse_other_content(session.connection(bind_arguments={"clause": WRITE}), row):
        return True
    buffer.once[row.id] = row.content
    return False


def _begin(session: Session) -> SessionTransaction:
    if not session.autobegin:
        raise TransactionError("no transaction has begun on this session: call session.begin() first")
    return session.begin()


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


def _is_boundary(transaction: SessionTransaction) -> bool:
    """Tell whether it is a real transaction or savepoint, not an internal one of a flush."""
    return transaction.nested or transaction.parent is None


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


def _address(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)


@event.listens_for(Session, "before_commit")
def _before_commit(session: Session) -> None:
    if not session._flushing:  # noqa: SLF001 - a savepoint may end inside a flush; SQLAlchemy itself checks this
        session.flush()
    buffer = _buffer_of(session)
    buffer.write(session)
    buffer.committing.append(_innermost(session))


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    buffer: _Buffer | None = vars(session).get(_KEY)
    if buffer is not None:
        buffer.committed = _innermost(session)


@event.listens_for(Session, "after_transaction_end")
def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if not _is_boundary(transaction):
        return
    buffer: _Buffer | None = vars(session).get(_KEY)
    if buffer is None:
        return
    parent = _boundary_above(transaction)
    if parent is None:
        del vars(session)[_KEY]
        buffer.end()
        return
    if buffer.committed is transaction:
        buffer.hand_up(transaction, parent)
    else:
        buffer.drop(transaction)


def _boundary_above(transaction: SessionTransaction) -> SessionTransaction | None:
    above = transaction.parent
    while above is not None and not _is_boundary(above):
        above = above.parent
    return above
