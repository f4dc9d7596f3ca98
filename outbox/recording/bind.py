"""Which engine of a session carries its events, and whether SQL may run on it here."""

from __future__ import annotations

import sys

from sqlalchemy import Engine, insert, table
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session

from outbox.errors import RecordError, TransactionError

__all__ = ["WRITE", "checked_bind", "events_table", "may_wait"]

events_table = table("events", schema="outbox")
"""The table that events are written to. A session with a bind for each class needs one for this table too, e.g.
`Session(binds={Base: engine, outbox.events_table: engine})`."""

# What a session is asked for the bind of: one that routes reads to a follower and writes to the primary has to see that
# this is a write.
WRITE = insert(events_table)


def checked_bind(session: Session) -> Engine:
    """Return the engine that will carry the events. Refuse now what would fail at commit."""
    try:
        bind = session.get_bind(clause=WRITE)
    except UnboundExecutionError as error:
        raise RecordError(
            "the session has no bind for the outbox: give it one, "
            "e.g. binds={Base: engine, outbox.events_table: engine}"
        ) from error
    if bind.dialect.name != "postgresql":
        raise RecordError(f"the outbox lives in PostgreSQL, but this session is bound to {bind.dialect.name}")
    options = bind.get_execution_options()
    if isinstance(bind, Engine) and options.get("isolation_level") == "AUTOCOMMIT":
        raise TransactionError(
            "the session's engine is in autocommit: the event would not share a transaction with the rows it tells of"
        )
    return bind.engine


def may_wait(session: Session) -> bool:
    """Tell whether SQL may run here: on an asynchronous engine only inside run_sync()."""
    if not session.get_bind(clause=WRITE).dialect.is_async:
        return True
    greenlets = sys.modules.get("greenlet")
    current = greenlets.getcurrent() if greenlets is not None else None
    return bool(getattr(current, "__sqlalchemy_greenlet_provider__", False))
