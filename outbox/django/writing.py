"""Write an event through Django's own connection, in the transaction that `transaction.atomic()` holds open.

It is written at once, in one statement, by a cursor of Django: so its savepoints, execute wrappers, query log and
`assertNumQueries` see it like any other statement. Whether a transaction is there is looked at before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction

from outbox.errors import RecordError, TransactionError
from outbox.recording.insert import check_driver, refuse_others, statement_for
from outbox.recording.named_errors import name_errors
from outbox.recording.statements import Row
from outbox.recording.targets import DjangoConnection

__all__ = ["attempt_django", "require_transaction", "require_usable", "write_django"]

_AWAITING = (
    "Django has no transactions in code that awaits: do it in a plain function, in transaction.atomic(), and call that "
    "by sync_to_async"
)


def write_django(connection: DjangoConnection, row: Row) -> None:
    """Insert one row in the transaction that is open.

    Raises:
        TransactionError: none is open, it is broken, or it cannot write.
        RecordError: the database is no PostgreSQL, or the idempotency key was used for other content.
        SchemaError: the database has no outbox schema.
    """
    require_transaction(connection)
    statement, parameters = statement_for(row)
    with name_errors, _rolling_back(connection), connection.cursor() as cursor:
        cursor.execute(statement.replace("%b", "%s"), parameters)  # Django's cursors know no %b
        answers = cursor.fetchall() if cursor.description else ()
    refuse_others(answers)


def attempt_django(connection: DjangoConnection, row: Row, claims: Sequence[str]) -> None:
    """Insert one row as `write_django` does, in a savepoint of its own: after an error the block goes on without it."""
    require_transaction(connection)
    with transaction.atomic(using=connection.alias):
        write_django(connection, row)
        with name_errors, connection.cursor() as cursor:
            for statement in claims:
                cursor.execute(statement)


@contextmanager
def _rolling_back(connection: DjangoConnection) -> Iterator[None]:
    """Let a statement that fails end the whole block, as one of a model does, though its error be caught."""
    try:
        yield
    except Exception as error:
        if connection.in_atomic_block:
            connection.needs_rollback = True
            connection.rollback_exc = error
        raise


def require_transaction(connection: DjangoConnection) -> None:
    """Refuse a connection without an open transaction that can write; nothing is sent. Raises as `write_django`."""
    require_usable(connection)
    if not connection.in_atomic_block and connection.get_autocommit():
        raise TransactionError(
            f"Django's connection {connection.alias!r} is in autocommit, so this would not share a transaction with"
            f" the rows that belong to it: wrap both in `with transaction.atomic({_argument(connection.alias)}):`, or"
            f" set ATOMIC_REQUESTS{_open_elsewhere(connection.alias)}"
        )
    check_driver(connection.connection, connection.connection)


def require_usable(connection: DjangoConnection) -> None:
    """Refuse a connection that takes no statement of ours, in a transaction or not. Raises as `write_django`."""
    if connection.vendor != "postgresql":
        raise RecordError(
            f"the outbox lives in PostgreSQL, but Django's connection {connection.alias!r} speaks {connection.vendor}"
        )
    if connection.in_atomic_block and connection.needs_rollback:
        raise TransactionError(
            f"the transaction of Django's connection {connection.alias!r} is broken, by an error that was caught"
            " inside it or by set_rollback(): let the error leave its atomic() block first"
        )
    try:
        connection.get_autocommit()  # connects, if nothing has yet
    except SynchronousOnlyOperation:
        raise TransactionError(_AWAITING) from None


def _argument(alias: str) -> str:
    return "" if alias == "default" else f"using={alias!r}"


def _open_elsewhere(alias: str) -> str:
    """Return a hint where another of the application's databases has the transaction that was meant."""
    others = [one.alias for one in connections.all(initialized_only=True) if one.alias != alias and one.in_atomic_block]
    return f"; the transaction that is open is of {others[0]!r}: say using={others[0]!r}" if others else ""
