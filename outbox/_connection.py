"""Tell whether a verb can run its SQL on what it was given."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from outbox._text import qualified_kind
from outbox.errors import TargetError
from outbox.recording.targets import is_async_session, is_django, session_of

__all__ = ["require_connection"]

_TAKEN = "connection: pass a SQLAlchemy Session or Connection, or Django's, not a {}; {}"
_OTHERWISE = "a scoped session will do too; else open one on the same database: `with engine.begin() as connection:`"


def require_connection(target: object, *, to_write: bool = True) -> Session | Connection:
    """Return what SQL is run on: a Session (scoped too) or Connection as it is, for Django's connection one on it.

    Raises TargetError, which says what to pass, for anything else; TransactionError for a connection of Django's that
    is in autocommit, where this is `to_write`.
    """
    given: Any = target
    if isinstance(given, Connection):
        return given
    if is_django(given):
        from outbox.django.bridge import borrow  # it loads Django, which is there if its connection is

        return borrow(given, to_write=to_write)
    if session_of(given) is not None and not is_async_session(given):
        return given  # type: ignore[no-any-return] # a scoped session does what a Session does
    raise TargetError(_TAKEN.format(qualified_kind(given), _mend(given)))


def _mend(target: object) -> str:
    """Say what to call instead for an asynchronous session or connection, or what to make of another thing."""
    is_session = session_of(target) is not None
    if is_session or (type(target).__name__ == "AsyncConnection" and hasattr(target, "run_sync")):
        call = f"`await {'session' if is_session else 'connection'}.run_sync(outbox.subscribe, url, types)`"
        return f"asynchronous code calls {call}, likewise for each function"
    return _OTHERWISE
