"""The data plane's one door to the database: each method runs one statement of statements.py in one short transaction.

A transaction's statements leave in one pipeline: one round trip. Ids are 16 raw bytes and available_at 8 raw bytes: the
data plane compares and returns them, it never reads them.
"""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.string import ByteaBinaryLoader

from outbox.secret import Secret
from relay.model.subscription import Subscription
from relay.model.verdict import Disable, Hold, VerdictKind
from relay.store import arrays, statements
from relay.store.arrays import Bigints, Byteas, Floats, Integers, Smallints, Texts, Timestamps, Uuids
from relay.store.events import event_of
from relay.store.rows import Leased, Look, Match, Settled, Swept, Taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from relay.model.delivery import Delivery
    from relay.model.event import Event
    from relay.model.settlement import Settlement
    from relay.store.rows import Birth

# libpq reads what its buffer holds, 16 KiB at first, and asyncio comes back for the next piece only after a round
# over every busy socket. One large answer makes it grow, and it never shrinks: a batch then arrives in a read or two.
WIDEN = "select repeat(' ', 1024 * 1024)"

MAX_SEQ = 2**63 - 1

__all__ = ["Store", "TakenBatch", "new_ids", "new_lease", "storable", "subscription_of"]


def new_lease() -> int:
    """Return a random 63-bit lease: unlike a sequence it is never issued twice, whatever crashes."""
    return int.from_bytes(os.urandom(8), "big") >> 1


def new_ids(count: int) -> list[bytes]:
    """Return `count` UUIDv7s as raw bytes, ascending in time, random below the millisecond."""
    head = (time.time_ns() // 1_000_000).to_bytes(6, "big")
    dice = os.urandom(10 * count)
    return [
        head + bytes((0x70 | dice[at] & 0x0F, dice[at + 1], 0x80 | dice[at + 2] & 0x3F)) + dice[at + 3 : at + 10]
        for at in range(0, 10 * count, 10)
    ]


class Store:
    """One connection to the data plane, opened at need and again after it broke.

    Every method is one short transaction and none is open between calls. Nothing is prepared and no session state is
    kept, which is what PgBouncer's transaction mode asks for. A lost database raises psycopg.OperationalError.
    """

    def __init__(self, conninfo: str, *, asynchronous_commit: bool = False) -> None:
        self._conninfo = conninfo
        self._commit = "off" if asynchronous_commit else "on"
        self._open: psycopg.AsyncConnection[Any] | None = None

    async def _connection(self) -> psycopg.AsyncConnection[Any]:
        if self._open is None or self._open.closed:
            self._open = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
            await self._open.execute(WIDEN)
            arrays.register(self._open)
            for name in ("uuid", "timestamptz"):
                self._open.adapters.register_loader(name, ByteaBinaryLoader)
        return self._open

    async def close(self) -> None:
        """Close the connection; harmless when it is broken or was never opened."""
        if self._open is not None:
            await self._open.close()

    async def poll(self, after_seq: int, due_since: float) -> Look:
        """Look, change nothing: what is pending above `after_seq`, what became due after `due_since` (Unix seconds)."""
        connection = await self._connection()
        try:
            cursor = await connection.execute((statements.POLL % (after_seq, due_since)).encode())
            for _ in ("begin", "set", "set"):
                cursor.nextset()
            rows = await cursor.fetchall()
        finally:
            await _rollback_if_open(connection)
        ((first, drawn, due, clock),) = rows
        return Look(first, drawn, [subscription_id.bytes for subscription_id in due], clock)

    async def sweep(self, after_id: bytes, count: int) -> list[Swept]:
        """Look at the next `count` subscriptions by id, passing over those that may not be sent to now."""
        return [Swept(*row) for row in await self._rows(statements.SWEEP, UUID(bytes=after_id), count)]

    async def changed(self, known: Sequence[tuple[bytes, int]]) -> list[bytes]:
        """Return which of these (id, version) have a newer version, or may not be sent to now."""
        ids, versions = zip(*known, strict=True)
        rows = await self._rows(statements.CHANGED, Uuids(ids), Bigints(versions))
        return [row[0] for row in rows]

    async def subscriptions(self, ids: Sequence[bytes]) -> list[Subscription]:
        """Read what sending needs of these subscriptions."""
        rows = await self._rows(statements.SUBSCRIPTIONS, Uuids(ids))
        return [subscription_of(row) for row in rows]

    async def drained(self) -> bool:
        """Tell whether nothing is pending, due or leased; what waits for a later time, or is paused, does not count."""
        ((drained,),) = await self._rows(statements.DRAINED)
        return bool(drained)

    @asynccontextmanager
    async def fan_out(
        self, after_seq: int, limit: int, byte_budget: int, *, up_to_seq: int = MAX_SEQ
    ) -> AsyncIterator[TakenBatch]:
        """pending → due or leased. Yields what was taken and matched; nothing is kept unless `resolve` is called.

        Raises psycopg.errors.LockNotAvailable when another relay's fan_out lasts too long.

        Args:
            after_seq: the low-water mark; -1 looks at everything.
            limit: events at most.
            byte_budget: bodies beyond this many bytes are left out.
            up_to_seq: events above are left for the next time.
        """
        connection = await self._connection()
        try:
            async with connection.pipeline():
                await connection.execute(statements.BEGIN)
                await connection.execute(statements.FAN_OUT_SETTINGS, (self._commit,))
                await connection.execute(statements.LOCK)
            # Not in the pipeline: after one, the server does not start its idle-in-transaction timer.
            bounds = (after_seq, up_to_seq)
            cursor = await connection.execute(statements.TAKE, (*bounds, limit, *bounds, byte_budget), binary=True)
            yield TakenBatch(connection, await cursor.fetchall())
        finally:
            await _rollback_if_open(connection)

    async def first_pending(self, after_seq: int) -> int | None:
        """Return the lowest pending event above `after_seq`."""
        rows = await self._rows(statements.FIRST_PENDING, after_seq)
        return rows[0][0] if rows else None

    async def unresolvable(self, event_seq: int, error: str) -> None:
        """pending → dead letter: an event that fan_out cannot resolve is parked, so that it stops nobody."""
        (delivery_id,) = new_ids(1)
        await self._rows(statements.UNRESOLVABLE, event_seq, UUID(bytes=delivery_id), error)

    async def claim(self, slots: Sequence[tuple[bytes, int]], limit: int, byte_budget: int, lease: int) -> list[Leased]:
        """due → leased, for up to so many rows of each subscription, oldest first, until their data fill the budget."""
        ids, counts = zip(*slots, strict=True)
        rows = await self._rows(statements.CLAIM, Uuids(ids), Integers(counts), limit, byte_budget, lease)
        return _leased(rows)

    async def claim_suspect(self, ids: Sequence[bytes], lease: int, former: Delivery | None) -> list[Leased]:
        """suspect → leased, one row at most, or → dead letter when it ended its process too often.

        Args:
            ids: the subscriptions to look at.
            lease: the new lease.
            former: the suspect that this process began before and still has out, if any: it is no longer alone.
        """
        former_id, former_lease = (former.id, former.lease) if former else (bytes(16), 0)
        asked = (Uuids(ids), Integers([1] * len(ids)), UUID(bytes=former_id), former_lease, lease)
        return _leased(await self._rows(statements.CLAIM_SUSPECT, *asked))

    async def settle(self, batch: Sequence[Settlement]) -> Settled:
        """leased → gone, waiting or dead letter, and one attempt row each; a delivery stands in `batch` once.

        What follows for the endpoints is written in the same transaction.
        """
        rows = sorted(batch, key=lambda settlement: settlement.delivery.id)
        delivered = [row.delivery.id for row in rows if row.verdict.kind == VerdictKind.DELIVERED]
        steps = [
            ("won", statements.SETTLE, _settle_columns(rows)),
            ("risen", statements.DELETE_BURIED_SUCCESSES, (Uuids(delivered),)),
            *_endpoint_changes(rows),
        ]
        answers = await self._transaction(*[(statement, columns) for _, statement, columns in steps])
        ids = {name: frozenset(row[0] for row in answer) for (name, _, _), answer in zip(steps, answers, strict=True)}
        return Settled(**ids)

    async def release(self, rows: Sequence[tuple[Delivery, float]]) -> None:
        """leased → due after so many seconds, the attempt given back: nothing was sent."""
        deliveries = [delivery for delivery, _ in rows]
        await self._rows(
            statements.RELEASE,
            Uuids([delivery.id for delivery in deliveries]),
            Bigints([delivery.lease for delivery in deliveries]),
            Smallints([0 if delivery.suspect else 1 for delivery in deliveries]),
            Floats([seconds for _, seconds in rows]),
        )

    async def _rows(self, statement: str, *parameters: object) -> list[Any]:
        """Run one statement in a transaction of its own; return its rows."""
        (rows,) = await self._transaction((statement, parameters))
        return rows

    async def _transaction(self, *asked: tuple[str, Sequence[object]]) -> list[list[Any]]:
        """Run statements with their parameters in one transaction and one round trip; return the rows of each."""
        connection = await self._connection()
        try:
            async with connection.pipeline():
                await connection.execute(statements.BEGIN)
                await connection.execute(statements.SETTINGS, (self._commit,))
                cursors = [await connection.execute(*one, binary=True) for one in asked]
                await connection.execute("commit")
            return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]
        finally:
            await _rollback_if_open(connection)


class TakenBatch:
    """One fan_out transaction, open between its take and its `resolve`."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], rows: list[Any]) -> None:
        self._connection = connection
        self.taken = sorted((_taken(row) for row in rows if row[0] is not None), key=lambda t: t.seq)
        self.matches: dict[tuple[str, str], list[Match]] = {
            (row[4], row[5]): list(map(Match, *row[9:12])) for row in rows if row[0] is None
        }

    async def subscriptions(self, ids: Sequence[bytes]) -> list[Subscription]:
        """Read what sending needs of these subscriptions, inside this transaction."""
        cursor = await self._connection.execute(statements.SUBSCRIPTIONS, (Uuids(ids),), binary=True)
        return [subscription_of(row) for row in await cursor.fetchall()]

    async def resolve(self, births: Sequence[Birth]) -> None:
        """Insert the deliveries and the record of how many subscriptions each event matched; commit."""
        seqs = [taken.seq for taken in self.taken]
        counts = [len(self.matches.get((taken.tenant, taken.type), ())) for taken in self.taken]
        columns = (
            seqs[0],
            Bigints(seqs),
            Integers(counts),
            Uuids([birth.id for birth in births]),
            Bigints([birth.event_seq for birth in births]),
            Uuids([birth.subscription_id for birth in births]),
            Timestamps([birth.due for birth in births]),
            Bigints([birth.lease for birth in births]),
            Floats([birth.lease_seconds for birth in births]),
        )
        async with self._connection.pipeline():
            await self._connection.execute(statements.BIRTH, columns, binary=True)
            await self._connection.execute("commit")


def _taken(row: Sequence[Any]) -> Taken:
    seq, available_at, available = row[:3]
    return Taken(seq, row[4], row[5], available_at, available, event_of(row[3:9]))


def _leased(rows: Sequence[Any]) -> list[Leased]:
    """Return the rows of a claim; those of one event share it, and with it the body that is made once."""
    events: dict[int, Event | None] = {}
    for row in rows:
        if row[1] not in events:
            events[row[1]] = event_of(row[6:])
    return [Leased(*(*row[:6], events[row[1]])) for row in rows]


async def _rollback_if_open(connection: psycopg.AsyncConnection[Any]) -> None:
    if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        await connection.execute("rollback")


def subscription_of(row: Sequence[Any]) -> Subscription:
    """Return a row of statements.SUBSCRIPTIONS as what sending needs; its id is 16 raw bytes."""
    identity, version, url, timeout_seconds, schedule, scheme, final_statuses, kinds, texts, closed_seconds = row
    secrets = tuple(zip(kinds, map(Secret, texts), strict=True))
    return Subscription(
        identity, version, url, timeout_seconds, tuple(schedule), scheme, tuple(final_statuses), secrets, closed_seconds
    )


def _endpoint_changes(rows: Sequence[Settlement]) -> Iterator[tuple[str, str, tuple[object, ...]]]:
    """Yield the statements for holds and disables, the longest hold of each endpoint; mostly there is none."""
    holds: dict[tuple[bytes, str], float] = {}
    disables: dict[tuple[bytes, str], str] = {}
    for row in rows:
        asked_of = (row.delivery.subscription_id, row.url)
        match row.verdict.endpoint:
            case Hold(seconds):
                holds[asked_of] = max(holds.get(asked_of, 0.0), seconds)
            case Disable(reason):
                disables[asked_of] = reason
    if holds:
        yield "held", statements.HOLD, (*_endpoints(holds), Floats(list(holds.values())))
    if disables:
        yield "disabled", statements.DISABLE, (*_endpoints(disables), Texts([r.encode() for r in disables.values()]))


def _endpoints(changes: Iterable[tuple[bytes, str]]) -> tuple[Uuids, Texts]:
    ids, urls = zip(*changes, strict=True)
    return Uuids(ids), Texts([url.encode() for url in urls])


def storable(value: str | None) -> bytes | None:
    """Return a text as PostgreSQL takes it, in UTF-8: a NUL and half a surrogate pair are replaced."""
    return None if value is None else value.replace("\x00", "\ufffd").encode("utf-8", "replace")


def _settle_columns(rows: Sequence[Settlement]) -> tuple[object, ...]:
    deliveries, answers = [row.delivery for row in rows], [row.kept for row in rows]
    return (
        Uuids([delivery.id for delivery in deliveries]),
        Bigints([delivery.lease for delivery in deliveries]),
        Smallints([row.verdict.kind for row in rows]),
        Floats([row.verdict.wait_seconds for row in rows]),
        Bigints([delivery.event_seq for delivery in deliveries]),
        Uuids([delivery.subscription_id for delivery in deliveries]),
        Smallints([delivery.attempts for delivery in deliveries]),
        Texts([row.outcome.encode() for row in rows]),
        Smallints([row.status for row in rows]),
        Integers([row.milliseconds for row in rows]),
        Texts([storable(kept.error) if kept else None for kept in answers]),
        Texts([storable(kept.url) if kept else None for kept in answers]),
        Texts([storable(kept.address) if kept else None for kept in answers]),
        Texts([storable(kept.headers) if kept else None for kept in answers]),
        Byteas([kept.excerpt if kept else None for kept in answers]),
    )
