"""The events of one session's open transaction: their order, whose they are, which are written. session.py says why."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import Transaction
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction

from outbox.errors import OutboxError, TransactionError
from outbox.ids import text_id
from outbox.recording.bind import WRITE
from outbox.recording.boundaries import innermost
from outbox.recording.commit_guard import CommitGuard
from outbox.recording.guarded_insert import write_each_kind
from outbox.recording.insert import Row, write
from outbox.recording.lost import tell_lost
from outbox.recording.refusals import note_refusal

__all__ = ["Buffer", "Entry"]


@dataclass(slots=True)
class Entry:
    """An event, the transaction or savepoint that owns it, and the one that it was written in."""

    row: Row
    owner: SessionTransaction
    written_in: SessionTransaction | None = None
    lenient: bool = False


@dataclass(slots=True)
class Buffer:
    """The events of one session's open transaction. The first `written` entries are in the database.

    `committing` has an item for each `before_commit` whose transaction has not ended yet: the innermost transaction at
    that time. It is the one that commits, or one inside it that was left open. `begun` has the session's connections,
    each with the transaction or savepoint that the session has joined. `engine` is the one that carries the events;
    `flushed` are those that its rows were flushed to. `once` has the content of each event with an idempotency key.
    `kept_up` counts the events that are no entries any more, since no savepoint can undo them. `settled` says that
    somebody knows what becomes of the events: who commits or rolls back, or the connection's owner.
    """

    entries: list[Entry] = field(default_factory=list)
    written: int = 0
    writing: bool = False
    committed: SessionTransaction | None = None
    committing: list[SessionTransaction | None] = field(default_factory=list)
    begun: list[tuple[Connection, Transaction | None]] = field(default_factory=list)
    engine: Engine | None = None
    flushed: set[Engine] = field(default_factory=set)
    once: dict[UUID, bytes] = field(default_factory=dict)
    guard: CommitGuard | None = None
    kept_up: int = 0
    settled: bool = False

    def __del__(self) -> None:
        if not self.settled and self.entries:
            tell_lost([entry.row for entry in self.entries], self.kept_up, "was forgotten")

    def unwritten(self) -> Sequence[Row]:
        """Return the rows that are not written yet, or are being written."""
        return [entry.row for entry in self.entries[self.written :]]

    def refuse_none_of(self, row: Row) -> None:
        """Let the event of this idempotency key raise where it is refused, since somebody relies on it now."""
        for entry in self.entries[self.written :]:
            if entry.row.id == row.id:
                entry.lenient = False

    def _refused_commit(self) -> Sequence[Row]:
        """Return the unwritten rows to a guard, which raises an error where there are any."""
        self.settled |= self.written < len(self.entries)
        return self.unwritten()

    def write(self, session: Session) -> None:
        """Write the unwritten rows; of those that may be refused without harm, the ones that are not."""
        unwritten = self.entries[self.written :]
        if not unwritten:
            return
        self.writing = True
        try:
            kept = self._insert(session, unwritten)
        finally:
            self.writing = False
        if len(kept) < len(unwritten):
            for refused in {entry.row.id for entry in unwritten} - {entry.row.id for entry in kept}:
                self.once.pop(refused, None)  # who records it again has to hear of it
        here = innermost(session)
        for entry in kept:
            entry.written_in = here
        self.entries[self.written :] = kept
        self.written = len(self.entries)

    def _insert(self, session: Session, entries: list[Entry]) -> list[Entry]:
        """Insert the entries' rows; return those that were not refused."""
        may_refuse = [entry.lenient for entry in entries]
        try:
            connection = session.connection(bind_arguments={"clause": WRITE})
            self._require_flushed_to(connection.engine, session)
        except (OutboxError, SQLAlchemyError) as error:
            if not all(may_refuse):
                raise
            for entry in entries:
                note_refusal(entry.row.type, text_id("evt", entry.row.id), error)
            return []
        rows = [entry.row for entry in entries]
        if not any(may_refuse):
            write(connection, rows)
            return entries
        return [*compress(entries, write_each_kind(connection, rows, may_refuse))]

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
                    self.guard = CommitGuard(connection, joined, self._refused_commit)

    def end(self, *, committed: bool) -> None:
        """Forget everything, unless the session left its transaction open, with rows waiting for it."""
        lost = not (committed or self.settled or sys.exc_info()[1] is not None)
        self.settled = True
        if self.guard is not None:
            if self.written < len(self.entries) and self.guard.is_left_open():
                return
            self.guard.stop()
        rows = [entry.row for entry in self.entries]
        self.entries.clear()
        if lost and (rows or self.kept_up):
            tell_lost(rows, self.kept_up, "was closed")

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
            self.kept_up += self.written
            self.written = 0

    def drop(self, ended: SessionTransaction) -> None:
        """Forget what a rolled-back savepoint owned. Rows of other owners that were written in it wait again."""
        self.committing = [innermost for innermost in self.committing if innermost is not ended]
        while self.entries and self.entries[-1].owner is ended:
            self.once.pop(self.entries.pop().row.id, None)
        self.written = min(self.written, len(self.entries))
        while self.written and self.entries[self.written - 1].written_in is ended:
            self.written -= 1


def _address(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)
