"""A SQLAlchemy Connection on Django's own connection: what it runs is part of Django's transaction.

It owns nothing. Its commit, rollback and close do nothing, since Django's atomic() decides; only the statements are its
own. They run on cursors of psycopg's usual kind: Django's would give JSON as text, and times as its settings say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import psycopg
from django.db import transaction
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.json import JsonbLoader
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

from outbox.django.recording import django_connection
from outbox.django.writing import require_transaction, require_usable
from outbox.recording.targets import DjangoConnection

__all__ = ["borrow", "connection", "take_over"]


class _Borrowed:
    """Django's connection as SQLAlchemy sees it: the driver's own, without the right to end its transaction."""

    def __init__(self, django: DjangoConnection, *, ends_transactions: bool = False) -> None:
        self.django = django
        self._driver = django.connection
        self._ends_transactions = ends_transactions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def cursor(self) -> psycopg.Cursor[Any]:
        cursor: psycopg.Cursor[Any] = psycopg.Cursor(self._driver)
        cursor.adapters.register_loader("jsonb", JsonbLoader)
        cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
        return cursor

    def commit(self) -> None:
        if self._ends_transactions:
            self._driver.commit()

    def rollback(self) -> None:
        if self._ends_transactions:
            self._driver.rollback()

    def close(self) -> None:
        """Leave it open: it is Django's."""

    def add_notice_handler(self, callback: Any) -> None:
        """Add none: it would stay when SQLAlchemy has long gone."""


_lent: ContextVar[_Borrowed] = ContextVar("_lent")


@cache
def _engine(database: str) -> Engine:
    """Return the engine whose connections are lent; one a database, which names it in errors, so that SQL is cached."""
    engine = create_engine(
        URL.create("postgresql+psycopg", database=database),
        creator=_lent.get,
        poolclass=NullPool,
        pool_reset_on_return=None,
        use_native_hstore=False,
    )
    event.listen(engine, "handle_error", _break_transaction)
    return engine


def _break_transaction(context: Any) -> None:
    """Tell Django that a statement has failed, so that its block rolls back rather than losing its rows silently."""
    if context.connection is None or context.connection.in_nested_transaction():
        return
    lent = context.connection.connection.dbapi_connection
    if lent.django.in_atomic_block:
        lent.django.needs_rollback = True
        lent.django.rollback_exc = context.original_exception


def borrow(django: DjangoConnection, *, to_write: bool = True) -> Connection:
    """Return a SQLAlchemy Connection on this connection of Django's, for one call.

    Raises TransactionError where no transaction is open, or it is broken; `to_write` False needs none.
    """
    (require_transaction if to_write else require_usable)(django)
    return _connect(_Borrowed(django))


def _connect(lent: _Borrowed) -> Connection:
    token = _lent.set(lent)
    try:
        return _engine(str(lent.info.dbname)).connect()
    finally:
        _lent.reset(token)


@contextmanager
def connection(using: str | None = None) -> Iterator[Connection]:
    """Yield a SQLAlchemy Connection, for every function of `outbox`, in a transaction.atomic() block of Django's.

    What is done by it commits and rolls back with that block, or with the one around it: its own commit() and
    rollback() do nothing. It is for the thread that asked for it.

    Args:
        using: a key of settings.DATABASES; default as for `record()`.

    Raises ArgumentError and TransactionError as `record()`.
    """
    django = django_connection(using)
    require_usable(django)
    with transaction.atomic(using=django.alias), borrow(django) as lent:
        yield lent


@contextmanager
def take_over(django: Any) -> Iterator[Connection]:
    """Yield a SQLAlchemy Connection that begins and ends transactions itself; none of Django's may be open.

    Raises TransactionManagementError inside atomic().
    """
    before = django.get_autocommit()
    django.set_autocommit(False)
    try:
        with _connect(_Borrowed(django, ends_transactions=True)) as lent:
            yield lent
    finally:
        if django.connection.closed:
            django.close()
        else:
            django.connection.rollback()
            django.set_autocommit(before)
