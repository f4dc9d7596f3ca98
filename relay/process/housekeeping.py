"""Keep the tables small and the secrets sealed, on a connection of its own, while the relay delivers.

The rounds make leaves ahead, clear removed subscriptions and expired secrets, seal secrets in clear, and apply
retention, and count attempts into roll-ups (0021_statistics.sql says how each is counted once). Each repeats one short
transaction until it has nothing left to do. A transaction works only while it holds
housekeeping's turn, so that one of several relays does it. It waits at most 50 ms for any other lock and then
tries again a few seconds later, so nothing queues behind housekeeping.

No round stops another one, whatever its error. `outbox.rounds` has the last success and the last error of each. It is
also how relays share the work: a round that another relay did a moment ago is not due.
"""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import psycopg
from psycopg import IsolationLevel
from psycopg.errors import LockNotAvailable, ReadOnlySqlTransaction

from outbox.errors import OutboxError
from outbox.sealing import NEWEST_KEY, SealingKey
from relay.config.database_url import RELAY_NAME
from relay.secrets import resealing
from relay.secrets.keyring import Keyring
from relay.store import turns
from relay.store.health import FORGET_WELL, MARK_LATE
from relay.store.limits import CLEAR_LIMITS
from relay.store.meaning import one_line
from relay.store.retention import RETENTION
from relay.store.subscriptions import CLEAR_REMOVED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from relay.config.options import Config
    from relay.store.retention import RetentionStep

    Sign = Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]

__all__ = ["Housekeeping", "Round"]

log = logging.getLogger("relay.process.housekeeping")

BATCH_ROWS = 2_000
# To make a leaf, the default leaf is read while inserts into it wait. A running relay therefore makes none while the
# default leaf is large; `relay migrate` does.
MAX_DEFAULT_BYTES = 256 * 1024 * 1024
# The rounds share one turn: a relay that finds it taken does its rounds a little later.
_TURN = turns.TRY.format(turn="housekeeping")
_TICK_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_SEALING = "secrets in clear"
_SEALING_EVERY_SECONDS = 30.0
LEAVES_OF_EVENTS = 40  # a leaf of events is filled in a fortieth of the retention time, or in half of that

_MAKE_EVENT_LEAF = f"""
select outbox.make_event_leaf(max_default_bytes => %(max_default_bytes)s,
                              span => make_interval(days => %(events_days)s) / {LEAVES_OF_EVENTS})"""

# A row that an application's transaction holds is passed over, and so are the rows that would wait for it.
_DELETE_REMOVED = """
with gone as (
    delete from outbox.subscriptions where id = any(array(
        select id from outbox.subscriptions s where removed_at < clock_timestamp() - interval '1 hour'
            and not exists (select from outbox.deliveries where subscription_id = s.id)
        limit %(batch)s for update skip locked))
    returning id)
select count(*) from gone"""
_CANCEL_ORPHANS = "select outbox.cancel_orphans(%(batch)s)"
_DELETE_EXPIRED = """
with gone as (
    delete from outbox.secrets where id = any(array(
        select id from outbox.secrets where expires_at <= clock_timestamp() limit %(batch)s for update skip locked))
    returning id)
select count(*) from gone"""
_DELETE_TESTS = """
with gone as (
    delete from outbox.test_requests where id = any(array(
        select id from outbox.test_requests where requested_at < clock_timestamp() - interval '1 day'
        limit %(batch)s for update skip locked))
    returning id)
select count(*) from gone"""

_AGES = """
select name, extract(epoch from clock_timestamp() - succeeded_at) from outbox.rounds
where name = any(%s) and succeeded_at is not null"""
_SUCCEEDED = """
insert into outbox.rounds (name, every_seconds, succeeded_at) values (%s, %s, clock_timestamp())
on conflict (name) do update set every_seconds = excluded.every_seconds, succeeded_at = excluded.succeeded_at"""
_FAILED = """
insert into outbox.rounds (name, every_seconds, failed_at, error) values (%s, %s, clock_timestamp(), %s)
on conflict (name) do update set
    every_seconds = excluded.every_seconds, failed_at = excluded.failed_at, error = excluded.error"""


@dataclass(frozen=True)
class Round:
    """A statement to repeat until its first column is null, false or zero: nothing is left then.

    Its parameter `after` is what it answered the last time, 0 at first. After `seconds` it goes on the next time.
    """

    name: str
    every_seconds: float
    statement: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    seconds: float = float("inf")


def _rounds(config: Config) -> list[Round]:
    """Return every round but sealing, in the order in which they are done.

    The row of a removed subscription stays an hour longer than its deliveries: a fan_out that began before the removal
    may still add some.
    """
    leaves = {"max_default_bytes": MAX_DEFAULT_BYTES, "events_days": config.events_retention_days}
    statistics = {"days": config.statistics_retention_days, "batch": BATCH_ROWS}
    return [
        Round("attempt leaves", 60, "select outbox.make_attempt_leaf()"),
        Round("idempotency key leaves", 60, "select outbox.make_key_leaf()"),
        Round("event leaves", 60, _MAKE_EVENT_LEAF, leaves),
        Round("deliveries of removed subscriptions", 5, CLEAR_REMOVED, {"batch": BATCH_ROWS}),
        Round("removed subscriptions", 60, _DELETE_REMOVED, {"batch": BATCH_ROWS}),
        Round("deliveries without a subscription", 60, _CANCEL_ORPHANS, {"batch": BATCH_ROWS}),
        Round("limits of what is gone", 3600, CLEAR_LIMITS, {"batch": BATCH_ROWS}),
        Round("secrets that ran out", 60, _DELETE_EXPIRED, {"batch": BATCH_ROWS}),
        Round("old test messages", 3600, _DELETE_TESTS, {"batch": BATCH_ROWS}),
        Round("late backlogs", 30, MARK_LATE, {"batch": BATCH_ROWS}),
        Round("endpoints that are well", 60, FORGET_WELL, {"batch": BATCH_ROWS}),
        *(_retention(step, getattr(config, f"{step.kind}_retention_days")) for step in RETENTION),
        Round("statistics", 5, "select outbox.roll_up(100, 100)"),
        Round("statistics of former attempts", 60, "select outbox.note_old_attempts()"),
        Round("old statistics", 300, "select outbox.prune_rollups(%(days)s, %(batch)s)", statistics),
        Round("old events of tenants", 60, "select outbox.prune_tenant_events(%(batch)s)", {"batch": BATCH_ROWS}),
        Round("what is old of tenants", 60, "select outbox.prune_tenant(%(batch)s)", {"batch": BATCH_ROWS}),
        Round("erasures", 5, "select outbox.erase_next(%(batch)s)", {"batch": BATCH_ROWS}, seconds=5.0),
        Round("old idempotency keys", 3600, "select outbox.forget_keys(%(batch)s)", {"batch": BATCH_ROWS}),
        Round("empty leaves", 60, "select outbox.drop_empty_leaf()"),
    ]


def _retention(step: RetentionStep, days: int) -> Round:
    """Return a step of retention as a round.

    Whole leaves go as soon as they are old, single rows only if their leaf stayed longer than it takes to fill it.
    """
    grace = {"events": 1 + days // LEAVES_OF_EVENTS, "attempts": 1}.get(step.kind, 0) if step.unit == "rows" else 0
    return Round(step.name, 3600, step.statement, {"days": days + grace, "batch": BATCH_ROWS})


async def _no_sign(_connection: psycopg.AsyncConnection[Any]) -> None:
    """Tell nobody that this process lives."""


class Housekeeping:
    """The rounds of one relay process, and when each is due again."""

    def __init__(self, config: Config, sign: Sign | None = None) -> None:
        """Keep house by this configuration; `sign` is called between transactions, to give a sign of life."""
        self._sign = sign or _no_sign
        self._conninfo = partial(config.conninfo, application_name=f"{RELAY_NAME} housekeeping")
        self._keyring = Keyring(config.secret_key)
        self._rounds = _rounds(config)
        self._every = {round_.name: round_.every_seconds for round_ in self._rounds} | {
            _SEALING: _SEALING_EVERY_SECONDS
        }
        self._due_at = dict.fromkeys(self._every, 0.0)
        self._lost_at: float | None = None

    async def run(self) -> None:
        """Do every round when it is due, until cancelled. Connect again when the database is away."""
        while True:
            try:
                await self._run_connected()
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._note_loss(error)
            await anyio.sleep(_TICK_SECONDS)

    async def _run_connected(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._conninfo(), autocommit=True, prepare_threshold=None
        ) as connection:
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
            await connection.execute(turns.SESSION)
            while True:
                await self._sign(connection)
                await self.do_due(connection)
                if self._lost_at is not None:
                    log.warning("housekeeping: connected again after %.0f s", time.monotonic() - self._lost_at)
                    self._lost_at = None
                await anyio.sleep(_TICK_SECONDS)

    def _note_loss(self, error: BaseException) -> None:
        """Log that the connection is lost, once until it is back."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            log.warning("housekeeping: connection lost, connecting again: %s", one_line(error))

    async def do_due(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Do each round that is due. The connection is in autocommit mode.

        Raises psycopg.Error when the connection is lost, or the server became read-only; every other error stays with
        its round.
        """
        await self._put_off_what_others_did(connection)
        for round_ in self._rounds:
            await self._do_if_due(connection, round_.name, partial(_repeat, connection, round_, self._sign))
        await self._do_if_due(connection, _SEALING, partial(_seal, connection, self._keyring))

    async def _put_off_what_others_did(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Put off the rounds that are due here but that another relay did. The first time, a relay does all of them."""
        now = time.monotonic()
        due = [name for name, due_at in self._due_at.items() if 0 < due_at <= now]
        if not due:
            return
        try:
            cursor = await connection.execute(_AGES, (due,))
            ages = {name: float(age) for name, age in await cursor.fetchall()}
        except psycopg.Error as error:
            _raise_if_lost(connection, error)
            return
        for name, age in ages.items():
            if age < 0.9 * self._every[name]:
                self._due_at[name] = now + self._every[name] - age

    async def _do_if_due(
        self, connection: psycopg.AsyncConnection[Any], name: str, work: Callable[[], Awaitable[None]]
    ) -> None:
        if time.monotonic() < self._due_at[name]:
            return
        pause = self._every[name]
        try:
            await work()
        except (psycopg.Error, OutboxError) as error:
            _raise_if_lost(connection, error)
            if isinstance(error, LockNotAvailable):
                pause = min(_RETRY_SECONDS, pause)
                log.debug("%s: in use, tried again in %d s", name, pause)
            else:
                log.warning("%s: %s", name, _told(error))
            await _note_failure(connection, name, self._every[name], _told(error))
        self._due_at[name] = time.monotonic() + pause


def _raise_if_lost(connection: psycopg.AsyncConnection[Any], error: Exception) -> None:
    """Raise the error if no other round can do better: there is no connection, or the server takes no writes."""
    if connection.closed or isinstance(error, ReadOnlySqlTransaction):
        raise error


def _told(error: Exception) -> str:
    return str(error).splitlines()[0] if isinstance(error, OutboxError) else one_line(error)


async def _note_failure(connection: psycopg.AsyncConnection[Any], name: str, every: float, error: str) -> None:
    """Keep the error of a round; where even that fails, the log line has to do."""
    try:
        await connection.execute(_FAILED, (name, every, error))
    except psycopg.Error as unnoted:
        _raise_if_lost(connection, unnoted)


async def _repeat(connection: psycopg.AsyncConnection[Any], round_: Round, sign: Sign) -> None:
    """Repeat a round's transaction while we hold its lock and something is left; the last one notes the success."""
    answer: Any = 0
    until = time.monotonic() + round_.seconds
    while answer is not None:
        await sign(connection)
        async with _transaction(connection):
            if not await _is_our_turn(connection, round_.name):
                return
            cursor = await connection.execute(round_.statement, {**round_.parameters, "after": answer})
            row = await cursor.fetchone()
            answer = row[0] if row and row[0] and time.monotonic() < until else None
            if answer is None:
                await connection.execute(_SUCCEEDED, (round_.name, round_.every_seconds))
        if answer is not None:
            log.debug("%s: %s", round_.name, answer)


@asynccontextmanager
async def _transaction(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """Run a block as one transaction that waits for no lock longer than 50 ms."""
    async with connection.transaction():
        await connection.execute("set local lock_timeout = '50ms'")
        yield


async def _seal(connection: psycopg.AsyncConnection[Any], keyring: Keyring) -> None:
    """Seal secrets in clear to the newest key, if this relay has its private half; one batch in each transaction."""
    after: UUID | None = UUID(int=0)
    while after is not None and keyring.newest is not None:
        async with _transaction(connection):
            if not await _is_our_turn(connection, _SEALING):
                return
            newest = await (await connection.execute(NEWEST_KEY)).fetchone()
            if newest is None or newest[0] not in keyring:
                return
            cursor = await connection.execute(resealing.READ_CLEAR, {"after": after, "batch": resealing.BATCH_ROWS})
            rows = await cursor.fetchall()
            planned = resealing.plan(rows, keyring, SealingKey.of(newest[1]))
            sealed = (await connection.execute(resealing.REPLACE, planned.parameters)).rowcount
            after = rows[-1][0] if rows else None
            if after is None:
                await connection.execute(_SUCCEEDED, (_SEALING, _SEALING_EVERY_SECONDS))
        if sealed:
            log.info("sealed %d secrets that lay in clear", sealed)


async def _is_our_turn(connection: psycopg.AsyncConnection[Any], name: str) -> bool:
    """Try to take the turn in this transaction, for the round of this name; tell whether we got it."""
    taken = await (await connection.execute(_TURN)).fetchone() is not None
    if not taken:
        log.debug("%s: another relay is at work", name)
    return taken
