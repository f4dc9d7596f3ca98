"""Transactions and savepoints of a session, without the internal ones of its flushes."""

from __future__ import annotations

from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["boundary_above", "innermost", "is_boundary"]


def innermost(session: Session) -> SessionTransaction | None:
    """Return the innermost savepoint or transaction that is open."""
    return session.get_nested_transaction() or session.get_transaction()


def is_boundary(transaction: SessionTransaction) -> bool:
    """Tell whether it is a real transaction or savepoint, not an internal one of a flush."""
    return transaction.nested or transaction.parent is None


def boundary_above(transaction: SessionTransaction) -> SessionTransaction | None:
    """Return the savepoint or transaction around this one."""
    above = transaction.parent
    while above is not None and not is_boundary(above):
        above = above.parent
    return above
