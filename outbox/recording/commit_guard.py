"""Refuse a COMMIT that bypasses the session while events wait in the session.

`session.connection().commit()`, or a commit by the owner of the Connection that the session was given, would store the
rows that the session has flushed and silently lose their events. COMMIT as SQL text, and the driver's own commit(),
cannot be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, event
from sqlalchemy.engine import Transaction

from outbox.errors import TransactionError
from outbox.ids import text_id
from outbox.recording.insert import Row

__all__ = ["CommitGuard"]

_NAMED_MAX = 5


class CommitGuard:
    """Watches one connection until its open transaction ends.

    Args:
        connection: the one that carries the session's events.
        joined: its transaction or savepoint that the session uses as its own.
        unwritten: returns the events that are not written yet.
    """

    def __init__(
        self, connection: Connection, joined: Transaction | None, unwritten: Callable[[], Sequence[Row]]
    ) -> None:
        self._connection = connection
        self._transaction = connection.get_transaction()
        self._joined = joined
        self._unwritten = unwritten
        event.listen(connection, "commit", self._refuse)

    def is_left_open(self) -> bool:
        """Tell whether the session, which has ended, left its transaction open for the connection's owner."""
        return self._joined is self._transaction and self._transaction is not None and self._transaction.is_active

    def stop(self) -> None:
        """Stop watching; the connection may commit again."""
        if not self._connection.closed:
            event.remove(self._connection, "commit", self._refuse)

    def _refuse(self, connection: Connection) -> None:
        if connection.get_transaction() is not self._transaction or not (rows := self._unwritten()):
            return
        # SQLAlchemy believes that a transaction whose commit failed has ended: it would not roll it back.
        connection.dialect.do_rollback(connection.connection)
        named = ", ".join(f"{row.type} {text_id('evt', row.id)}" for row in rows[:_NAMED_MAX])
        more = f" and {len(rows) - _NAMED_MAX} more" if len(rows) > _NAMED_MAX else ""
        raise TransactionError(
            f"a session on this connection holds events that are not written yet ({named}{more}): "
            "commit the session, not its connection; the transaction was rolled back"
        )
