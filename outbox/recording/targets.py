"""Recognise what `record()` was given: a session of any kind, a connection of any kind, or something else.

Classes of drivers and of SQLAlchemy's asyncio are recognised by name and never imported, so that none of them must be
installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias, TypeGuard

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, sessionmaker

from outbox._text import qualified_kind
from outbox.errors import TargetError

__all__ = [
    "DjangoConnection",
    "Target",
    "is_async_session",
    "is_asyncpg",
    "is_django",
    "is_psycopg",
    "is_psycopg_async",
    "refuse",
    "session_of",
    "unscoped",
]


class DjangoConnection(Protocol):
    """Django's connection to one of settings.DATABASES, such as `django.db.connection`, by what we use of it."""

    vendor: str
    alias: str
    in_atomic_block: bool
    needs_rollback: bool
    rollback_exc: BaseException | None
    connection: Any

    def cursor(self) -> Any:
        """Return a cursor that Django watches."""

    def get_autocommit(self) -> bool:
        """Tell whether each statement is a transaction of its own; it connects if need be."""


if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import scoped_session

    Target: TypeAlias = (
        Session
        | AsyncSession
        | scoped_session[Any]
        | async_scoped_session[Any]
        | Connection
        | psycopg.Connection[Any]
        | DjangoConnection
    )
else:
    Target = Any  # the classes above are not loaded here; annotations that are read at run time must resolve


def session_of(target: Any) -> Session | None:
    """Return the plain Session behind a Session, AsyncSession, or scoped session of either kind, else None."""
    if isinstance(target, Session):
        return target
    registry = getattr(target, "registry", None)
    if callable(registry) and not isinstance(target, type):
        target = registry()
    inner = getattr(target, "sync_session", target)
    return inner if isinstance(inner, Session) else None


def is_async_session(target: Any) -> bool:
    """Tell whether it is an AsyncSession, scoped or not, which no plain function may run SQL on."""
    registry = getattr(target, "registry", None)
    return hasattr(registry() if callable(registry) else target, "sync_session")


def unscoped(target: Any) -> Any:
    """Return the AsyncSession of an async_scoped_session, which has no `run_sync`; everything else as it is."""
    return target() if hasattr(target, "get_async_bind") and not hasattr(target, "run_sync") else target


def _is_of(target: object, package: str, *names: str) -> bool:
    return any(kind.__name__ in names and kind.__module__.partition(".")[0] == package for kind in type(target).__mro__)


def is_django(target: object) -> TypeGuard[DjangoConnection]:
    """Tell whether it is Django's connection to a database, or `django.db.connection`, which stands for one."""
    if _is_of(target, "django", "ConnectionProxy"):  # Django's caches have such a proxy too
        return _is_of(vars(target).get("_connections"), "django", "ConnectionHandler")
    return _is_of(target, "django", "BaseDatabaseWrapper")


def is_psycopg(target: object) -> bool:
    """Tell whether it is a psycopg 3 Connection."""
    return _is_of(target, "psycopg", "Connection")


def is_psycopg_async(target: object) -> bool:
    """Tell whether it is a psycopg 3 AsyncConnection."""
    return _is_of(target, "psycopg", "AsyncConnection")


def is_asyncpg(target: object) -> bool:
    """Tell whether it is an asyncpg Connection, or a pool's proxy of one."""
    return _is_of(target, "asyncpg", "Connection", "PoolConnectionProxy")


def refuse(target: object) -> NoReturn:
    """Raise a TargetError that says what the target is and what to do instead."""
    kind = qualified_kind(target)
    if is_psycopg_async(target) or is_asyncpg(target):
        mend = "use `await outbox.arecord(connection, …)` for it"
    elif _is_of(target, "sqlalchemy", "AsyncConnection"):
        mend = "use `await connection.run_sync(outbox.record, type, data)`"
    elif isinstance(target, Engine | sessionmaker) or _is_of(target, "sqlalchemy", "AsyncEngine", "async_sessionmaker"):
        mend = "it has no transaction; pass a session or connection made from it"
    elif is_django(target):
        mend = (
            "Django has no transactions in code that awaits: record in a plain function, in transaction.atomic(), "
            "and call that by sync_to_async"
        )
    elif isinstance(target, Connection) or session_of(target) is not None or is_psycopg(target):
        mend = "use plain `outbox.record(…)` for it; arecord is for raw psycopg AsyncConnection and asyncpg connections"
    else:
        mend = (
            "pass a SQLAlchemy Session, AsyncSession, scoped session or Connection, a psycopg Connection, or Django's; "
            "raw psycopg AsyncConnection and asyncpg connections go to arecord"
        )
    raise TargetError(f"record cannot write to a {kind}: {mend}")
