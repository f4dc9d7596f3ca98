"""A database's home: the cluster and name under which relays send its events. They send none from a copy elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.store.database import Database

__all__ = ["note_home"]


async def note_home(database: Database) -> str:
    """Return the place of the database that we are connected to; note it as home where none is noted yet."""
    ((here,),) = await database.fetch("select outbox.note_home()")
    return str(here)
