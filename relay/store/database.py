"""One connection to the data plane, and the settings that every transaction on it begins with.

Plans: nothing is prepared, and every transaction forces custom plans and index order, because a plan made on tables
that are empty every quiet night takes seconds when a burst comes. In the statements, sets are probed by
`= any(array(select …))` or `lateral (… limit 1)`, never by a join to a CTE that a plan could turn round.

A transaction's statements leave in one pipeline: one round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.string import ByteaBinaryLoader

from relay.store import arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BEGIN", "PLANS", "SETTINGS", "Database", "rollback_if_open"]

# libpq reads what its buffer holds, 16 KiB at first, and asyncio comes back for the next piece only after a round
# over every busy socket. One large answer makes it grow, and it never shrinks: a batch then arrives in a read or two.
WIDEN = "select repeat(' ', 1024 * 1024)"

BEGIN = "begin isolation level read committed read write"
# jit off: before version 18 a plan that cannot avoid what is switched off looks so dear that PostgreSQL compiles it,
# 100 ms each time.
PLANS = (
    "select set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true),"
    " set_config('jit', 'off', true), set_config('synchronous_commit', %s, true)"
)
# No statement may both wait for rows that others change and choose partitions while it runs: PostgreSQL 18 then reads
# freed memory, and the server restarts (the second look at a changed row starts a plan of its own, which leaves the
# state of the choice to its own, short, memory). Only fan_out, whose rows nobody changes, may choose.
SETTINGS = f"{PLANS}, set_config('enable_partition_pruning', 'off', true)"


class Database:
    """One connection to the data plane, opened at need and again after it broke.

    Every verb on it is one short transaction and none is open between calls. Nothing is prepared and no session state
    is kept, which is what PgBouncer's transaction mode asks for. A lost database raises psycopg.OperationalError.
    """

    def __init__(self, conninfo: str, *, asynchronous_commit: bool = False) -> None:
        self._conninfo = conninfo
        self.synchronous_commit = "off" if asynchronous_commit else "on"
        self._open: psycopg.AsyncConnection[Any] | None = None

    async def connection(self) -> psycopg.AsyncConnection[Any]:
        """Return the connection, opened anew if it broke. Ids and times come from it as raw bytes: 16 and 8."""
        if self._open is None or self._open.closed:
            self._open = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
            await self._open.execute(WIDEN)
            arrays.register(self._open)
            for name in ("uuid", "timestamptz"):
                self._open.adapters.register_loader(name, ByteaBinaryLoader)
        return self._open

    async def rows(self, statement: str, *parameters: object) -> list[Any]:
        """Run one statement in a transaction of its own; return its rows."""
        (rows,) = await self.transaction((statement, parameters))
        return rows

    async def transaction(self, *asked: tuple[str, Sequence[object]]) -> list[list[Any]]:
        """Run statements with their parameters in one transaction and one round trip; return the rows of each."""
        connection = await self.connection()
        try:
            async with connection.pipeline():
                await connection.execute(BEGIN)
                await connection.execute(SETTINGS, (self.synchronous_commit,))
                cursors = [await connection.execute(*one, binary=True) for one in asked]
                await connection.execute("commit")
            return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]
        finally:
            await rollback_if_open(connection)

    async def close(self) -> None:
        """Close the connection; harmless when it is broken or was never opened."""
        if self._open is not None:
            await self._open.close()


async def rollback_if_open(connection: psycopg.AsyncConnection[Any]) -> None:
    """Roll back what a failed block left open."""
    if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        await connection.execute("rollback")
