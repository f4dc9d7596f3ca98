"""One connection to the data plane, and the settings that every transaction on it begins with.

Plans: nothing is prepared, and every transaction forces custom plans and index order, because a plan made for empty
tables in a quiet night takes seconds when a burst comes. The statements look rows up by `= any(array(select …))` or
`lateral (… limit 1)`, never by a join to a CTE, whose order the planner could exchange.

A transaction's statements leave in one pipeline: one round trip.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import ConnectionTimeout, InsufficientPrivilege
from psycopg.pq import TransactionStatus
from psycopg.types.string import ByteaBinaryLoader

from relay.store import arrays
from relay.store.postgres_errors import Meaning, is_new_condition, meaning_of
from relay.store.row_security import FIND_POLICY, HIDING, SET_ROW_SECURITY
from relay.store.turns import LIMITS, SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Parameters = Sequence[object] | Mapping[str, object]

__all__ = [
    "BEGIN",
    "IMPATIENT",
    "IN_ORDER",
    "ORIGIN",
    "PLANS",
    "PRUNE_WHEN_PLANNED",
    "SETTINGS",
    "Database",
    "rollback_if_open",
]

# libpq reads as much as its buffer holds, 16 KiB at first, and asyncio reads the next piece only after a round over
# every busy socket. One large answer makes the buffer grow for good: a batch then arrives in a read or two.
WIDEN = "select repeat(' ', 1024 * 1024)"

CONNECT_MAX_SECONDS = 60

BEGIN = "begin isolation level read committed read write"
# jit off: before version 18 a plan that has to do what is switched off gets so high a cost that PostgreSQL compiles it,
# 100 ms each time. lock_timeout: no wait is without end. A relay that waits does not look for those that stopped.
PLANS = (
    "select set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true),"
    f" set_config('jit', 'off', true), {LIMITS}, set_config('lock_timeout', '5s', true),"
    " set_config('synchronous_commit', %s, true), set_config('row_security', 'off', true)"
)
# For what takes the first rows of a range. By statistics of an empty table the first 500 of a million pending events
# are a few rows, which PostgreSQL fetches by a bitmap and sorts: all of the million, for each take. A bitmap has no
# order. Not for what looks rows up by id: where every index costs the same, it would then walk another one.
IN_ORDER = "set_config('enable_bitmapscan', 'off', true)"
# No statement may both wait for rows that others change and prune partitions while it runs: PostgreSQL 18 then reads
# freed memory, and the server restarts. (It checks a changed row again in a plan of its own, and keeps the state of the
# pruning in the memory of that plan, which ends too early.) So pruning is on for two kinds of statement only: one that
# waits for nobody, and one that names its events by constants, `seq = any(%b)`, which leaves nothing to prune later.
# docs/postgresql-pruning-crash.md has a case of it.
# Without pruning a statement plans and locks every leaf of events: 43 ms and 3,007 locks at 1,000 leaves.
SETTINGS = f"{PLANS}, set_config('enable_partition_pruning', 'off', true)"
# For what must not wait for an application's transaction, which may hold a row for as long as it likes.
IMPATIENT = f"{SETTINGS}, set_config('lock_timeout', '250ms', true)"
# Where such a limit is set, against what hangs in an application. A slow server is waited for: what a limit ended would
# be begun again, and ended again, for ever. transaction_timeout came with version 17.
_HAS_LIMIT = """
current_setting('statement_timeout') <> '0' or coalesce(current_setting('transaction_timeout', true), '0') <> '0'"""
_NO_LIMIT = """
set_config('statement_timeout', '0', true),
case when current_setting('transaction_timeout', true) <> '0' then set_config('transaction_timeout', '0', true) end"""
PRUNE_WHEN_PLANNED = "select set_config('enable_partition_pruning', 'on', true)"

# Whatever of this changes, it is not the data that we knew: another server, a standby that was promoted (timeline), a
# backup brought back (start of the server), another database or name, a schema that was dropped or a table that was
# emptied and filled again (filenode). The timeline of the checkpoint would be late: a promotion writes one only
# afterwards.
ORIGIN = """
select (select system_identifier from pg_catalog.pg_control_system()),
       case when not pg_catalog.pg_is_in_recovery()
            then left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) end,
       (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint,
       (select oid::bigint from pg_catalog.pg_database where datname = pg_catalog.current_database()),
       pg_catalog.current_database(),
       pg_catalog.pg_relation_filenode(pg_catalog.to_regclass('outbox.subscriptions'))::bigint
"""


class Database:
    """One connection to the data plane, opened when it is needed, and again after it broke.

    Every verb on it is one short transaction, and none is open between calls. Nothing is prepared and no session state
    is kept: PgBouncer's transaction mode asks for that. A lost database raises psycopg.OperationalError.

    `origin` says whose data it has, read at each connection (and by each sweep: a pooler may move us without a word).
    What was learnt from another origin says nothing about this one, not even where the numbers are the same. Where the
    role may not ask, each connection counts as another origin. `test_waits`: whether somebody waits for a test message,
    as of the last sweep. `exceptions`: what else each transaction sets, as of the connection: where a table has a
    policy of row level security (row_security.py; one that came later is refused, and we connect again), and where
    statements have a limit.
    """

    def __init__(self, conninfo: str | Callable[[], str], *, asynchronous_commit: bool = False) -> None:
        """Keep what a connection needs; `conninfo` may be a function, asked anew for each connection."""
        self._conninfo = conninfo
        self._synchronous_commit = "off" if asynchronous_commit else "on"
        self.exceptions = ""
        self.origin: tuple[object, ...] = ()
        self.may_ask_origin = True
        self.test_waits = False
        self._open: psycopg.AsyncConnection[Any] | None = None
        self._patience = 1  # how many times connect_timeout the next connection may take

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """Open the connection unless it is open, and return it. It gives ids and times as raw bytes: 16 and 8."""
        if self._open is None or self._open.closed:
            conninfo = self._conninfo if isinstance(self._conninfo, str) else self._conninfo()
            opened = await self._dial(conninfo)
            await self._prepare(opened)
            self._open = opened
        return self._open

    async def _dial(self, conninfo: str) -> psycopg.AsyncConnection[Any]:
        """Connect. Where the time did not suffice, the next try has twice as much: a login is several round trips."""
        limit = int(conninfo_to_dict(conninfo).get("connect_timeout") or 0)
        if limit > 0 and self._patience > 1:
            most = max(limit, min(limit * self._patience, CONNECT_MAX_SECONDS))
            conninfo = make_conninfo(conninfo, connect_timeout=most)
        began = time.monotonic()
        try:
            opened = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        except ConnectionTimeout:
            self._patience = min(2 * self._patience, CONNECT_MAX_SECONDS)
            raise
        if time.monotonic() < began + limit / 2:
            self._patience = 1
        return opened

    async def _prepare(self, opened: psycopg.AsyncConnection[Any]) -> None:
        try:
            await opened.execute(WIDEN)
            await opened.execute(SESSION)
            await self._ask_exceptions(opened)
            arrays.register(opened)
            for name in ("uuid", "timestamptz"):
                opened.adapters.register_loader(name, ByteaBinaryLoader)
            await self._ask_origin(opened)
        except BaseException:
            await opened.close()
            raise

    async def _ask_exceptions(self, opened: psycopg.AsyncConnection[Any]) -> None:
        """Ask what else this server needs; where one table hides rows, it would name any that has a policy."""
        asked = await opened.execute(f"select {FIND_POLICY}, {_HAS_LIMIT}")
        ((has_policy, has_limit),) = await asked.fetchall()
        if has_policy:
            ((hiding,),) = await (await opened.execute(HIDING)).fetchall()
            if hiding:
                raise InsufficientPrivilege(f"row-level security hides rows of {hiding}")
        self.exceptions = ", ".join([SET_ROW_SECURITY] * has_policy + [_NO_LIMIT] * has_limit)

    async def _ask_origin(self, opened: psycopg.AsyncConnection[Any]) -> None:
        try:
            self.origin = await (await opened.execute(ORIGIN)).fetchone() or ()
            self.may_ask_origin = True
        except InsufficientPrivilege:
            self.origin, self.may_ask_origin = (os.urandom(8),), False

    async def fetch(self, statement: str, *parameters: object, settings: str = SETTINGS) -> list[Any]:
        """Run one statement in a transaction of its own; return its rows."""
        (rows,) = await self.transaction((statement, parameters), settings=settings)
        return rows

    async def fetch_named(self, statement: str, parameters: Mapping[str, object]) -> list[Any]:
        """Do the same with parameters by name."""
        (rows,) = await self.transaction((statement, parameters))
        return rows

    async def set_up(self, connection: psycopg.AsyncConnection[Any], settings: str) -> None:
        """Set SETTINGS, or another of their kind, for the transaction that is open or begins with it in a pipeline."""
        await connection.execute(settings, (self._synchronous_commit,))
        if self.exceptions:
            await connection.execute(f"select {self.exceptions}")

    async def transaction(self, *asked: tuple[str, Parameters], settings: str = SETTINGS) -> list[list[Any]]:
        """Run statements with their parameters in one transaction and one round trip; return the rows of each."""
        connection = await self.connect()
        try:
            async with connection.pipeline():
                await connection.execute(BEGIN)
                await self.set_up(connection, settings)
                cursors = [await connection.execute(*one, binary=True) for one in asked]
                await connection.execute("commit")
            return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]
        finally:
            await rollback_if_open(connection)

    async def recover(self, error: BaseException) -> None:
        """Close the connection after an error, unless only the rows were refused or the server was busy.

        The next statement dials again: by then a name or a list of hosts may lead to another server. A
        limit that came later ends statements as if the server were busy: the next connection asks for limits.
        """
        if is_new_condition(error) or meaning_of(error) not in (Meaning.BUSY, Meaning.REFUSED):
            await self.close()

    async def close(self) -> None:
        """Close the connection; harmless when it is broken or was never opened."""
        if self._open is not None:
            await self._open.close()


async def rollback_if_open(connection: psycopg.AsyncConnection[Any]) -> None:
    """Roll back the transaction that a failed block left open, if it did."""
    if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        await connection.execute("rollback")
