"""A COMMIT by other hands than the session's is refused while events wait in the session.

`session.connection().commit()`, or the owner of the Connection a session was given, would make the rows durable that
the session has flushed, and the events that tell of them would be lost without a word. SQL text that commits, and the
driver's own commit(), cannot be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, event

from outbox.errors import TransactionError
from outbox.ids import text_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import Transaction

    from outbox.recording.insert import Row

__all__ = ["CommitGuard"]

_SHOWN = 5


class CommitGuard:
    """Watches one connection for the length of its open transaction.

    Args:
        connection: the one that carries the session's events.
        joined: the transaction or savepoint of it that the session takes for its own.
        waiting: gives the events that are not written yet.
    """

    def __init__(
        self, connection: Connection, joined: Transaction | None, waiting: Callable[[], Sequence[Row]]
    ) -> None:
        self._connection = connection
        self._transaction = connection.get_transaction()
        self._joined = joined
        self._waiting = waiting
        event.listen(connection, "commit", self._refuse)

    def is_left_open(self) -> bool:
        """Whether the session, now that it has ended, has left its transaction to the connection's owner."""
        return self._joined is self._transaction and self._transaction is not None and self._transaction.is_active

    def stop(self) -> None:
        """Let the connection commit."""
        if not self._connection.closed:
            event.remove(self._connection, "commit", self._refuse)

    def _refuse(self, connection: Connection) -> None:
        if connection.get_transaction() is not self._transaction or not (rows := self._waiting()):
            return
        # SQLAlchemy takes a transaction whose commit failed for ended, and would give it to the pool as it is.
        connection.dialect.do_rollback(connection.connection)
        shown = ", ".join(f"{row.type} {text_id('evt', row.id)}" for row in rows[:_SHOWN])
        more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        raise TransactionError(
            f"a session on this connection holds events that are not written yet ({shown}{more}): "
            "commit the session, not its connection; the transaction was rolled back"
        )
