"""Who changes something: a name for the audit, carried by the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox._text import complaint
from outbox.errors import ActorError

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["act_as", "check_actor"]

_MAX_ACTOR_BYTES = 256
_SET = text("select set_config('outbox.actor', :actor, true)")
_KEPT = text("select current_setting('outbox.actor', true)")


def act_as(connection: Session | Connection, actor: str) -> None:
    """Let the audit name `actor` ("alice@example.com") for what this transaction changes from here on.

    It ends with the transaction, or with the savepoint it was said in. Nothing checks that it is true: pass what your
    own login says. The database's login role is noted beside it.

    Raises:
        ActorError: the name was refused, or no transaction would carry it (autocommit).
    """
    name = check_actor(actor)
    connection.execute(_SET, {"actor": name})
    if connection.execute(_KEPT).scalar_one() != name:
        raise ActorError(
            "actor: the connection is in autocommit, where it would be forgotten at once; begin a transaction"
        )


def check_actor(value: object) -> str:
    """Return the name of whoever acts: printable text of 1 to 256 bytes. Raises ActorError."""
    if refused := complaint("actor", value, _MAX_ACTOR_BYTES):
        raise ActorError(refused)
    name = str.__str__(value)
    if not name.strip() or not name.isprintable():
        raise ActorError(f"actor: {ascii(name)[:40]} is no name; give printable text, such as alice@example.com")
    return name
