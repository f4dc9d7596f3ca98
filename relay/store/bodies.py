"""Read the events of deliveries that are leased already, after the commit that leased them.

No transaction that holds a lock sends a payload: a client that stops reading stops the server in the middle of its
answer, and with it whatever the transaction has locked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from relay.store.arrays import Bigints
from relay.store.database import PLANS, PRUNE_WHEN_PLANNED
from relay.store.postgres_errors import one_line
from relay.store.rows import EVENT_COLUMNS, event_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.model.event import EventParts
    from relay.store.database import Database

__all__ = ["BODIES", "Bodies", "bodies_of", "fetch_readable", "is_unreadable", "read_bodies"]

# The numbers are known when this is planned, so that the planner opens and locks only the leaves that hold them. No row
# is locked here, so pruning is safe (see SETTINGS).
BODIES = f"select seq, {EVENT_COLUMNS} from outbox.events where seq = any(%b)"


class Bodies(NamedTuple):
    """Events by their number. One that is in neither is gone: somebody removed its row.

    unreadable: the server's error for each event whose row is there and cannot be read.
    """

    events: dict[int, EventParts]
    unreadable: dict[int, str]


def bodies_of(rows: Iterable[Sequence[Any]]) -> Bodies:
    """Return the rows of BODIES. Whoever asks for one event gets the same value, so that its body is made once."""
    return Bodies({row[0]: event_of(row[1:]) for row in rows}, {})


def is_unreadable(error: psycopg.Error) -> bool:
    """Tell whether the server found its own data damaged (SQLSTATE class XX), as in a page or a payload."""
    return error.sqlstate is not None and error.sqlstate.startswith("XX")


async def read_bodies(database: Database, seqs: Sequence[int]) -> Bodies:
    """Read these events; where the server cannot, halve them until the damaged ones are known. Changes nothing.

    A connection that breaks is opened once more: what was leased for these events would have to wait for its lease.
    """
    if not seqs:
        return Bodies({}, {})
    try:
        return bodies_of(await _fetch(database, seqs))
    except psycopg.Error as error:
        if not is_unreadable(error):
            raise
        if len(seqs) == 1:
            return Bodies({}, {seqs[0]: one_line(error)})
    half = len(seqs) // 2
    first, second = await read_bodies(database, seqs[:half]), await read_bodies(database, seqs[half:])
    return Bodies(first.events | second.events, first.unreadable | second.unreadable)


async def fetch_readable(database: Database, statements: Sequence[str], *parameters: object) -> list[Any]:
    """Run the first of these statements that does not stumble over damaged data; return its rows.

    Each names its events by constants, so that it opens their leaves only.
    """
    for statement in statements[:-1]:
        try:
            return await _fetch_pruned(database, statement, parameters)
        except psycopg.Error as error:
            if not is_unreadable(error):
                raise
    return await _fetch_pruned(database, statements[-1], parameters)


async def _fetch_pruned(database: Database, statement: str, parameters: Sequence[object]) -> list[Any]:
    _, rows = await database.transaction((PRUNE_WHEN_PLANNED, ()), (statement, parameters))
    return rows


async def _fetch(database: Database, seqs: Sequence[int]) -> list[Any]:
    asked = (BODIES, (Bigints(seqs),))
    try:
        (rows,) = await database.transaction(asked, settings=PLANS)
    except psycopg.OperationalError:
        (rows,) = await database.transaction(asked, settings=PLANS)
    return rows
