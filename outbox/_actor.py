"""The actor: who makes a change, by the name that the audit notes. The caller's transaction carries it."""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from outbox._connection import require_connection
from outbox._text import complaint
from outbox.errors import ActorError

__all__ = ["act_as", "check_actor"]

_MAX_ACTOR_BYTES = 256
_SET = text("select set_config('outbox.actor', :actor, true)")
_CURRENT = text("select current_setting('outbox.actor', true)")


def act_as(connection: Session | Connection, actor: str) -> None:
    """Set the actor ("alice@example.com") that the audit notes for every later change in this transaction.

    It ends with the transaction, or with the savepoint in which it was set. Nothing verifies the name: pass one that
    your own login has checked. The audit notes the database's login role too.

    Raises:
        ActorError: the name was refused, or no transaction would carry it (autocommit).
        TargetError: the first argument is neither a session nor a connection.
    """
    name = check_actor(actor)
    connection = require_connection(connection)
    connection.execute(_SET, {"actor": name})
    if connection.execute(_CURRENT).scalar_one() != name:
        raise ActorError(
            "actor: the connection is in autocommit, where it would be forgotten at once; begin a transaction"
        )


def check_actor(value: object) -> str:
    """Return the actor's name, printable text of 1 to 256 bytes. Raises ActorError."""
    if refused := complaint("actor", value, _MAX_ACTOR_BYTES):
        raise ActorError(refused)
    name = str.__str__(value)
    if not name.strip() or not name.isprintable():
        raise ActorError(f"actor: {ascii(name)[:40]} is no name; give printable text, such as alice@example.com")
    return name
