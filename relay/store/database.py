"""One connection to the data plane, and the settings that every transaction on it begins with.

Plans: nothing is prepared, and every transaction forces custom plans and index order, because a plan made for empty
tables in a quiet night takes seconds when a burst comes. The statements look rows up by `= any(array(select …))` or
`lateral (… limit 1)`, never by a join to a CTE, whose order the planner could exchange.

A transaction's statements leave in one pipeline: one round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.string import ByteaBinaryLoader

from relay.store import arrays
from relay.store.turns import LIMITS, SESSION

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BEGIN", "PLANS", "SETTINGS", "Database", "rollback_if_open"]

# libpq reads as much as its buffer holds, 16 KiB at first, and asyncio reads the next piece only after a round over
# every busy socket. One large answer makes the buffer grow for good: a batch then arrives in a read or two.
WIDEN = "select repeat(' ', 1024 * 1024)"

BEGIN = "begin isolation level read committed read write"
# jit off: before version 18 a plan that has to do what is switched off gets so high a cost that PostgreSQL compiles it,
# 100 ms each time.
PLANS = (
    "select set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true),"
    f" set_config('jit', 'off', true), {LIMITS}, set_config('synchronous_commit', %s, true)"
)
# No statement may both wait for rows that others change and prune partitions while it runs: PostgreSQL 18 then reads
# freed memory, and the server restarts. (It checks a changed row again in a plan of its own, and keeps the state of the
# pruning in the memory of that plan, which ends too early.) Only fan_out may prune: nobody changes its rows.
SETTINGS = f"{PLANS}, set_config('enable_partition_pruning', 'off', true)"


class Database:
    """One connection to the data plane, opened when it is needed, and again after it broke.

    Every verb on it is one short transaction, and none is open between calls. Nothing is prepared and no session state
    is kept: PgBouncer's transaction mode asks for that. A lost database raises psycopg.OperationalError.
    """

    def __init__(self, conninfo: str, *, asynchronous_commit: bool = False) -> None:
        self._conninfo = conninfo
        self.synchronous_commit = "off" if asynchronous_commit else "on"
        self._open: psycopg.AsyncConnection[Any] | None = None

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """Open the connection unless it is open, and return it. It gives ids and times as raw bytes: 16 and 8."""
        if self._open is None or self._open.closed:
            self._open = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
            await self._open.execute(WIDEN)
            await self._open.execute(SESSION)
            arrays.register(self._open)
            for name in ("uuid", "timestamptz"):
                self._open.adapters.register_loader(name, ByteaBinaryLoader)
        return self._open

    async def fetch(self, statement: str, *parameters: object) -> list[Any]:
        """Run one statement in a transaction of its own; return its rows."""
        (rows,) = await self.transaction((statement, parameters))
        return rows

    async def transaction(self, *asked: tuple[str, Sequence[object]], settings: str = SETTINGS) -> list[list[Any]]:
        """Run statements with their parameters in one transaction and one round trip; return the rows of each."""
        connection = await self.connect()
        try:
            async with connection.pipeline():
                await connection.execute(BEGIN)
                await connection.execute(settings, (self.synchronous_commit,))
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
    """Roll back the transaction that a failed block left open, if it did."""
    if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        await connection.execute("rollback")
