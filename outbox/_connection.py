"""Tell whether a verb can run its SQL on what it was given."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from outbox.errors import ArgumentError
from outbox.recording.targets import session_of

__all__ = ["require_connection"]


def require_connection(target: object) -> None:
    """Raise ArgumentError, which says what to pass, for what is neither a Session (scoped too) nor a Connection."""
    given: Any = target
    if isinstance(given, Connection) or (session_of(given) is not None and _is_plain(given)):
        return
    kind = f"{type(given).__module__}.{type(given).__qualname__}"
    mend = "asynchronous code calls `await session.run_sync(outbox.subscribe, url, types)`, likewise for each function"
    raise ArgumentError(f"connection: pass a SQLAlchemy Session or Connection, not a {kind}; {mend}")


def _is_plain(session: Any) -> bool:
    registry = getattr(session, "registry", None)
    return not hasattr(registry() if callable(registry) else session, "sync_session")
