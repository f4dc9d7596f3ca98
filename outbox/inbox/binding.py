"""The receiver's own transaction, on whatever carries it; and a transaction apart, for what has to stay all the same.

A statement has `{name}` in the place of each parameter, and returns one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import Transaction
from sqlalchemy.orm import Session

from outbox._text import qualified_kind
from outbox.errors import ArgumentError, SchemaError, TransactionError
from outbox.recording.bind import WRITE, checked_bind
from outbox.recording.insert import check, check_driver
from outbox.recording.named_errors import name_errors
from outbox.recording.targets import (
    is_async_session,
    is_asyncpg,
    is_django,
    is_psycopg,
    is_psycopg_async,
    session_of,
)

__all__ = ["Binding", "bind", "require_own", "run_in"]

_IDLE = 0  # libpq's PQTRANS_IDLE
_UNDEFINED_FUNCTION = "42883"
_COMMITTED = (
    "session: the inbox commits it, with the message's id, when the message is done; after a commit before, a failure"
    " would lose the rest, as the sender's next copy is a duplicate. Leave the commit out"
)
_ENDED = (
    "session: its transaction was ended while the message was processed, and with it the message's id is gone. Raise an"
    " error to roll back; a part that may fail belongs in session.begin_nested()"
)


class Binding(Protocol):
    """What carries the receiver's transaction."""

    def begin(self) -> None:
        """Begin the transaction that commit() or rollback() ends, where the first statement does not begin one."""

    def run(self, statement: str, values: Mapping[str, Any]) -> Any:
        """Run a statement in the receiver's transaction; return its row."""

    def run_apart(self, statement: str, values: Mapping[str, Any]) -> Any:
        """Run a statement in a transaction of its own and commit it, whatever becomes of the receiver's."""

    def guarded(self) -> AbstractContextManager[object]:
        """Let nobody end the receiver's transaction inside this block: a commit is refused, a rollback told of."""

    def commit(self) -> BaseException | None:
        """Commit the receiver's transaction. Return the error of what the application had put off until then."""

    def rollback(self) -> None:
        """Roll the receiver's transaction back; none may be open."""


def bind(target: Any) -> Binding:
    """Return the binding of a Session, Connection, psycopg's or Django's connection, or raise ArgumentError."""
    if (django := _django_of(target)) is not None:
        from outbox.inbox.on_django import OnDjango  # it loads Django, which is there if its connection is

        return OnDjango(django, _OnConnection)
    if isinstance(target, Connection):
        return _OnConnection(target)
    if is_psycopg(target):
        return _OnPsycopg(target)
    session = session_of(target)
    if session is not None and not is_async_session(target):
        return _OnSession(session)
    kind = qualified_kind(target)
    if is_psycopg_async(target) or is_asyncpg(target):
        mend = "in asynchronous code it takes SQLAlchemy's AsyncSession or AsyncConnection, by areceive or aprocess"
    elif hasattr(target, "run_sync") or is_async_session(target):
        mend = "asynchronous code calls `await outbox.inbox.aprocess(…)`, aprocessing or areceive"
    else:
        mend = "pass a SQLAlchemy Session or Connection, a psycopg Connection, or Django's connection"
    raise ArgumentError(f"session: not a {kind}; {mend}")


def require_own(target: Any) -> None:
    """Refuse a Connection that is lent by Django, whose atomic() alone ends the transaction. Raises ArgumentError."""
    if not is_django(target) and _django_of(target) is not None:
        raise ArgumentError(
            "session: what SQLAlchemy runs on Django's connection is ended by Django's atomic() alone; pass"
            " django.db.connection itself"
        )


def _django_of(target: Any) -> Any:
    """Return Django's connection: the target itself, or what lends its driver's to this Connection or Session's."""
    if is_django(target):
        return target
    found = target if isinstance(target, Connection) else getattr(session_of(target), "bind", None)
    return getattr(found.connection.dbapi_connection, "django", None) if isinstance(found, Connection) else None


async def run_in(target: Any, work: Any) -> Any:
    """Run plain code on the plain session or connection behind an asynchronous one. Raises ArgumentError."""
    if is_django(target):
        raise ArgumentError(
            "session: Django has no transactions in code that awaits; call the plain function, such as process, by"
            " sync_to_async"
        )
    found = target.registry() if callable(getattr(target, "registry", None)) else target
    if not hasattr(found, "run_sync"):
        kind = qualified_kind(target)
        raise ArgumentError(f"session: pass an AsyncSession or AsyncConnection of SQLAlchemy, not a {kind}")
    return await found.run_sync(work)


class _OnConnection:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self) -> None:
        """Do nothing: the first statement begins it."""

    def run(self, statement: str, values: Mapping[str, Any]) -> Any:
        with name_errors, _old_schema():
            check(self._connection)
            return _execute(self._connection, statement, values)

    def run_apart(self, statement: str, values: Mapping[str, Any]) -> Any:
        if self._connection.in_transaction():
            return _execute_apart(self._connection.engine, statement, values)
        with self._connection.begin():
            return _execute(self._connection, statement, values)

    def guarded(self) -> AbstractContextManager[object]:
        return _guard(self._connection, "commit")

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()


class _OnSession:
    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self) -> None:
        """Do nothing: the first statement begins it."""

    def run(self, statement: str, values: Mapping[str, Any]) -> Any:
        checked_bind(self._session)
        with name_errors, _old_schema():
            connection = self._session.connection(bind_arguments={"clause": WRITE})
            check(connection)
            return _execute(connection, statement, values)

    def run_apart(self, statement: str, values: Mapping[str, Any]) -> Any:
        return _execute_apart(checked_bind(self._session), statement, values)

    def guarded(self) -> AbstractContextManager[object]:
        return self._guard()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        # A commit of its connection passes the session by, and stores the message's id all the same.
        connection = self._session.connection(bind_arguments={"clause": WRITE})
        with _guard(self._session, "before_commit"), _guard(connection, "commit"):
            yield

    def commit(self) -> None:
        self._session.commit()

    def rollback(self) -> None:
        self._session.rollback()


class _OnPsycopg:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def begin(self) -> None:
        """Do nothing: the first statement begins it."""

    def run(self, statement: str, values: Mapping[str, Any]) -> Any:
        with name_errors, _old_schema():
            check_driver(self._connection, self._connection)
            return _execute_psycopg(self._connection, statement, values)

    def run_apart(self, statement: str, values: Mapping[str, Any]) -> Any:
        if self._connection.info.transaction_status == _IDLE:
            with self._connection.transaction():
                return _execute_psycopg(self._connection, statement, values)
        import psycopg

        info = self._connection.info
        with psycopg.connect(info.dsn, password=info.password) as apart:
            return _execute_psycopg(apart, statement, values)

    def guarded(self) -> AbstractContextManager[object]:
        guard: AbstractContextManager[object] = self._connection.transaction()  # psycopg refuses both inside of it
        return guard

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()


@contextmanager
def _guard(holder: Session | Connection, committing: str) -> Iterator[None]:
    """Guard a transaction of SQLAlchemy's; `committing` is the event that comes before its COMMIT."""
    begun = holder.get_transaction()

    def refuse(*_: object) -> None:
        if isinstance(holder, Connection):
            # SQLAlchemy believes that a transaction whose commit failed has ended: it would not roll it back.
            holder.dialect.do_rollback(holder.connection)
        elif holder.get_nested_transaction() is not None:
            return  # the end of a savepoint
        raise TransactionError(_COMMITTED)

    event.listen(holder, committing, refuse)
    try:
        yield
    finally:
        event.remove(holder, committing, refuse)
    # A connection keeps a transaction whose commit was refused, and the application has hidden the error.
    was_refused = isinstance(begun, Transaction) and not begun.is_active
    if was_refused or holder.get_transaction() is not begun:
        raise TransactionError(_ENDED)


def _execute(connection: Connection, statement: str, values: Mapping[str, Any]) -> Any:
    return connection.execute(text(_with(statement, values, ":{}")), dict(values)).one()


def _execute_apart(engine: Engine, statement: str, values: Mapping[str, Any]) -> Any:
    with engine.begin() as connection:
        return _execute(connection, statement, values)


def _execute_psycopg(connection: Any, statement: str, values: Mapping[str, Any]) -> Any:
    from psycopg import Cursor, rows

    cursor = Cursor(connection, row_factory=rows.namedtuple_row)
    return cursor.execute(_with(statement, values, "%({})s"), dict(values)).fetchone()


def _with(statement: str, values: Mapping[str, Any], placeholder: str) -> str:
    return statement.format(**{name: placeholder.format(name) for name in values})


@contextmanager
def _old_schema() -> Iterator[None]:
    """Name the one cause of a function that is not there."""
    try:
        yield
    except Exception as error:
        cause = getattr(error, "orig", None) or error
        state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        if state != _UNDEFINED_FUNCTION:
            raise
        raise SchemaError("the outbox schema in this database has no inbox yet: run `relay migrate`") from error
