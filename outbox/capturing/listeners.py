"""Hear the unit of work: what each flush writes, and when the transaction is about to commit.

The listeners are on all mappers and sessions, from the first capture on until the last is removed. A row of a class
that nobody captures costs three look-ups. SQLAlchemy's events force these rules:

- Mapper events tell which rows a flush writes: `session.new`, `dirty` and `deleted` lack orphans and rows whose foreign
  key the flush itself sets. Their values are read in `after_flush` only: some are known no earlier.
- `before_commit` comes first here, before the outbox writes its events. It fires for a savepoint too, where nothing is
  decided yet. Where the outermost transaction ends with savepoints open, it fires for that one first: what they did is
  decided when the last of them has ended. A later listener, or a flush of the commit itself, may write once more.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction, UOWTransaction

from outbox.capturing import bulk, images, rows
from outbox.capturing.deciding import connection_of, decide, note
from outbox.capturing.journal import Journal, Step, Writing, find_journal, forget_journal, journal_of
from outbox.capturing.registry import Watch, watch_of
from outbox.recording.boundaries import boundary_above, innermost, is_boundary

__all__ = ["HEARD", "start", "stop"]


def _before_flush(session: Session, _context: UOWTransaction, _objects: object) -> None:
    """Read what changed objects do not hold of their rows, all of a class at once."""
    journal = journal_of(session)
    journal.end_flush()
    unread: dict[Mapper[Any], list[InstanceState[Any]]] = {}
    for one in (*session.dirty, *session.deleted):
        state = _state_of(one)
        watch = watch_of(state.mapper)
        if watch is None or state.key is None or not watch.of_changes:
            continue
        journal.images[state] = image = images.before(state, watch.shape)
        if images.has_unknown(image) and not _is_completed(journal, state, image):
            unread.setdefault(state.mapper, []).append(state)
    for mapper, states in unread.items():
        _fill(journal, states, connection_of(session, mapper))


def _state_of(instance: Any) -> InstanceState[Any]:
    state: InstanceState[Any] = instance._sa_instance_state  # noqa: SLF001 - what inspect() returns, a tenth of its time
    return state


def _is_known(journal: Journal, state: InstanceState[Any]) -> bool:
    """Tell whether an earlier step of this transaction has the row's image before it."""
    assert state.key is not None
    return bool(journal.latest) and (state.mapper.base_mapper, tuple(state.key[1])) in journal.latest


def _is_completed(journal: Journal, state: InstanceState[Any], image: images.Image) -> bool:
    """Take what the object does not hold as an earlier step of this transaction left it; tell whether there is one.

    A row that no step knows is noted as incomplete.
    """
    if not _is_known(journal, state):
        journal.incomplete.add(state)
        return False
    assert state.key is not None
    last = journal.latest[state.mapper.base_mapper, tuple(state.key[1])]
    if last.after is not None:
        for name in image:
            if image[name] is images.UNKNOWN:
                image[name] = last.after.get(name, images.UNKNOWN)
    return True


def _fill(journal: Journal, states: list[InstanceState[Any]], connection: Connection) -> None:
    mapper = states[0].mapper
    watch = watch_of(mapper)
    assert watch is not None
    keys = [tuple(state.key[1]) for state in states if state.key is not None]
    for state, read in zip(states, rows.read(connection, mapper, watch.shape, keys), strict=True):
        if read is None:
            continue
        journal.incomplete.discard(state)
        image = journal.images[state]
        for name in image:
            if image[name] is images.UNKNOWN:
                image[name] = read[name]


def _before_insert(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    watch = watch_of(mapper)
    session = state.session
    if watch is None or session is None:
        return
    journal = journal_of(session)
    journal.writers.add(mapper)
    if not watch.captures:
        return
    _replaced(session, watch, connection, state)
    journal.writing.append(Writing(mapper, state, None))


def _replaced(session: Session, watch: Watch, connection: Connection, state: InstanceState[Any]) -> None:
    """Note the row that this new object takes over: SQLAlchemy makes an UPDATE of a deletion and an insertion."""
    values = [state.dict.get(name) for name in watch.shape.key]
    if None in values or not watch.of_changes:
        return
    mapper = state.mapper
    old = session.identity_map.get(mapper.identity_key_from_primary_key(tuple(values)))
    if old is not None and old in session.deleted:
        _before_write(mapper, connection, _state_of(old), stays=False)


def _before_update(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    _before_write(mapper, connection, state, stays=True)


def _before_delete(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    _before_write(mapper, connection, state, stays=False)


def _before_write(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any], *, stays: bool) -> None:
    watch = watch_of(mapper)
    session = state.session
    if watch is None or session is None:
        return
    journal = journal_of(session)
    journal.writers.add(mapper)
    known = _is_known(journal, state)
    if not watch.of_changes and not known:
        return
    image = journal.images.get(state)
    if image is None:
        image = journal.images[state] = images.before(state, watch.shape)
        if images.has_unknown(image) and not _is_completed(journal, state, image):
            _fill(journal, [state], connection)
    if state in journal.incomplete:
        return  # the row is gone
    alone = len(mapper.dispatch.before_update) == 1  # another listener may still set any attribute
    expired = tuple(state.expired_attributes) if alone else ()
    journal.writing.append(Writing(mapper, state, image, stays, tuple(state.committed_state), expired))


def _after_flush(session: Session, _context: UOWTransaction) -> None:
    journal = find_journal(session)
    if journal is None or not journal.writing:
        return
    steps = [step for one in journal.end_flush() if (step := _step(one)) is not None]
    note(session, journal, steps)


def _step(one: Writing) -> Step | None:
    """Return what the flush did to a row; None where it changed nothing."""
    watch = watch_of(one.mapper)
    if watch is None:
        return None
    shape, state, base = watch.shape, one.state, one.mapper.base_mapper
    if one.was is None:
        after = images.after_insert(state, shape)
        identity = (base, tuple(after[name] for name in shape.key))
        return Step(one.mapper, identity, identity, None, after, state.obj())
    assert state.key is not None
    identity = (base, tuple(state.key[1]))
    if not one.stays:
        return Step(one.mapper, identity, identity, one.was, None, state.obj())
    after = images.after_update(state, shape, one.was, one.changed, one.expired)
    if not images.differing(one.was, after, shape.names):
        return None
    becomes = (base, tuple(after[name] for name in shape.key))
    return Step(one.mapper, identity, becomes, one.was, after, state.obj())


def _before_commit(session: Session) -> None:
    if not session._flushing:  # noqa: SLF001 - a savepoint may end inside a flush; SQLAlchemy itself checks this
        session.flush()
    journal = journal_of(session)
    if session.get_nested_transaction() is None:
        decide(session, journal)
    journal.committing.append(innermost(session))


def _after_commit(session: Session) -> None:
    if (journal := find_journal(session)) is not None:
        journal.committed = innermost(session)


def _after_soft_rollback(session: Session, _transaction: SessionTransaction) -> None:
    if (journal := find_journal(session)) is not None:
        journal.end_flush()


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if not is_boundary(transaction):
        return
    parent = boundary_above(transaction)
    if parent is None:
        forget_journal(session)
        return
    journal = find_journal(session)
    if journal is None:
        return
    if journal.committed is not transaction:
        journal.drop(transaction)
        return
    journal.hand_up(transaction, parent)
    if journal.committing and parent.parent is None:
        decide(session, journal)


HEARD: tuple[tuple[Any, str, Any, dict[str, bool]], ...] = (
    (Mapper, "before_insert", _before_insert, {"raw": True}),
    (Mapper, "before_update", _before_update, {"raw": True}),
    (Mapper, "before_delete", _before_delete, {"raw": True}),
    (Session, "before_flush", _before_flush, {}),
    (Session, "after_flush", _after_flush, {}),
    (Session, "before_commit", _before_commit, {"insert": True}),
    (Session, "after_commit", _after_commit, {}),
    (Session, "after_soft_rollback", _after_soft_rollback, {}),
    (Session, "after_transaction_end", _after_transaction_end, {}),
    (Session, "after_begin", bulk.note_connection, {}),
    (Session, "do_orm_execute", bulk.do_orm_execute, {}),
    (Engine, "before_execute", bulk.before_execute, {"retval": True}),
    (Engine, "before_cursor_execute", bulk.before_cursor_execute, {}),
    (Engine, "after_execute", bulk.after_execute, {}),
)
"""Each listener: on what, for which event, the function, and how it is registered."""


def start() -> None:
    """Begin to listen, unless it has begun."""
    for target, name, function, options in HEARD:
        if not event.contains(target, name, function):
            event.listen(target, name, function, **options)


def stop() -> None:
    """Listen no longer."""
    for target, name, function, _ in HEARD:
        if event.contains(target, name, function):
            event.remove(target, name, function)
