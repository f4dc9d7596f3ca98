"""The inbox on Django's connection: a message in an atomic() block, and what has to stay in a transaction apart.

Where no block is open, the inbox's own is the transaction. Inside one, as with ATOMIC_REQUESTS, it is a savepoint: the
message is taken when the outermost block commits, and Django answers after that. With autocommit off no block commits:
a commit of the connection follows the inbox's own, and inside another one the inbox refuses to work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from django.db import transaction
from sqlalchemy import Connection

from outbox.django.bridge import borrow, take_over
from outbox.django.writing import require_usable
from outbox.errors import TransactionError

__all__ = ["OnDjango"]

_LOST = (
    "session: Django rolls this block back, after an error that was caught in it, set_rollback() or close(), and with"
    " it the message's id. Let the error go on; a part that may fail belongs in a transaction.atomic() of its own"
)
_NEVER_COMMITS = (
    "session: Django's autocommit is off, and an atomic() block does not commit then: the message would be answered"
    " before it is stored. Call the inbox outside of atomic() and ATOMIC_REQUESTS, or with autocommit on"
)


class _Runs(Protocol):
    def run(self, statement: str, values: Mapping[str, Any]) -> Any: ...

    def run_apart(self, statement: str, values: Mapping[str, Any]) -> Any: ...


class OnDjango:
    """What carries the receiver's transaction, where that is Django's. It is for one message."""

    def __init__(self, django: Any, on_connection: Callable[[Connection], _Runs]) -> None:
        self._django = django
        self._on_connection = on_connection
        self._is_owner = False
        self._block: AbstractContextManager[Any] | None = None
        self._ends_transaction = False
        self._is_committed = False

    def begin(self) -> None:
        """Let the first statement open the block that commit() or rollback() ends: a forgery sends none.

        Raises TransactionError in a block that was opened with autocommit off.
        """
        if self._django.in_atomic_block and not self._django.commit_on_exit and not self._is_in_test():
            raise TransactionError(_NEVER_COMMITS)
        self._is_owner = True

    def run(self, statement: str, values: Mapping[str, Any]) -> Any:
        """Run a statement in the block that is open; return its row."""
        if self._is_owner and self._block is None:
            self._open_block()
        with borrow(self._django) as lent:
            return self._on_connection(lent).run(statement, values)

    def run_apart(self, statement: str, values: Mapping[str, Any]) -> Any:
        """Run a statement and commit it, on a second connection where a transaction is open on this one."""
        if self._is_in_test():
            # A test expects that all it did is rolled back, and what a second connection commits would stay.
            with transaction.atomic(using=self._django.alias), borrow(self._django) as lent:
                return self._on_connection(lent).run(statement, values)
        with _free(self._django) as free, take_over(free) as ours:
            return self._on_connection(ours).run_apart(statement, values)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Refuse to go on where what was done inside will be rolled back. Django refuses a commit inside a block."""
        yield
        if self._django.needs_rollback or not self._django.in_atomic_block:
            raise TransactionError(_LOST)

    def commit(self) -> BaseException | None:
        """Leave the block; the outermost one commits. Return the error of a hook of on_commit(), which comes after."""
        if (block := self._take_block()) is None:
            return None
        try:
            block.__exit__(None, None, None)
            if self._ends_transaction:
                self._django.commit()
        except BaseException as error:
            if not self._is_committed:
                raise
            return error
        return None

    def rollback(self) -> None:
        """Leave the block as an error would; none may be open."""
        if (block := self._take_block()) is not None:
            undone = TransactionError("rolled back by the inbox")
            block.__exit__(type(undone), undone, None)
        if self._ends_transaction:
            self._django.rollback()

    def _open_block(self) -> None:
        require_usable(self._django)
        is_outermost, commits_alone = not self._django.in_atomic_block, self._django.get_autocommit()
        self._ends_transaction = is_outermost and not commits_alone
        block = transaction.atomic(using=self._django.alias)
        block.__enter__()
        self._block = block
        if is_outermost and commits_alone:
            self._django.on_commit(self._note_commit)  # the first hook of all: whatever raises later, it has run

    def _note_commit(self) -> None:
        self._is_committed = True

    def _take_block(self) -> AbstractContextManager[Any] | None:
        block, self._block = self._block, None
        return block

    def _is_in_test(self) -> bool:
        return any(block._from_testcase for block in self._django.atomic_blocks)  # noqa: SLF001 - as Django's durable does


@contextmanager
def _free(django: Any) -> Iterator[Any]:
    """Yield a connection to the same database on which no transaction is open."""
    if not django.in_atomic_block and django.get_autocommit():
        yield django
        return
    second = django.copy()
    try:
        yield second
    finally:
        second.close()
