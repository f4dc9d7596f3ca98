"""Keep the tables small and the secrets sealed, on a connection of its own, while the relay delivers.

The rounds make leaves ahead, clear removed subscriptions and expired secrets, seal secrets in clear, and apply
retention. Each repeats one short transaction until it has nothing left to do. A transaction works only while it holds
housekeeping's turn, so that one of several relays does it. It waits at most 50 ms for any other lock and then
tries again a round later, so nothing queues behind housekeeping.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
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
from relay.store.subscriptions import CLEAR_REMOVED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from relay.config.options import Config

__all__ = ["ROUNDS", "Housekeeping", "Round"]

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


@dataclass(frozen=True)
class Round:
    """A statement to repeat until its first column is null, false or zero: nothing is left then."""

    name: str
    every_seconds: float
    statement: str


# The row of a removed subscription stays an hour longer than its deliveries: a fan_out that began before the removal
# may still add some. Whole leaves go as soon as they are old; single rows only if their leaf stayed a day longer.
ROUNDS = (
    Round("attempt leaves", 60, "select outbox.make_attempt_leaf()"),
    Round("event leaves", 60, "select outbox.make_event_leaf(max_default_bytes => %(max_default_bytes)s)"),
    Round(
        "deliveries of removed subscriptions",
        5,
        CLEAR_REMOVED,
    ),
    Round(
        "removed subscriptions",
        60,
        """
with gone as (
    delete from outbox.subscriptions s where removed_at < clock_timestamp() - interval '1 hour'
        and not exists (select from outbox.deliveries where subscription_id = s.id)
    returning id)
select count(*) from gone""",
    ),
    Round(
        "secrets that ran out",
        60,
        "with gone as (delete from outbox.secrets where expires_at <= clock_timestamp() returning id)"
        " select count(*) from gone",
    ),
    Round(
        "leaves of old events",
        3600,
        "select leaf from outbox.retire_event_leaf(clock_timestamp() - make_interval(days => %(events_days)s))",
    ),
    Round(
        "old events",
        3600,
        "select reached from outbox.prune_events("
        "clock_timestamp() - make_interval(days => %(events_days)s + 1), %(reached)s, %(batch)s)",
    ),
    Round(
        "leaves of old attempts",
        3600,
        "select leaf from outbox.retire_attempt_leaf(clock_timestamp() - make_interval(days => %(attempts_days)s))",
    ),
    Round(
        "old attempts",
        3600,
        "select outbox.prune_attempts(clock_timestamp() - make_interval(days => %(attempts_days)s + 1), %(batch)s)",
    ),
    Round(
        "old resolutions",
        3600,
        "select outbox.prune_resolutions(clock_timestamp() - make_interval(days => %(resolutions_days)s), %(batch)s)",
    ),
    Round("empty leaves", 60, "select outbox.drop_empty_leaf()"),
)


class Housekeeping:
    """The rounds of one relay process, and when each is due again."""

    def __init__(self, config: Config) -> None:
        self._conninfo = config.conninfo(application_name=f"{RELAY_NAME} housekeeping")
        self._parameters = {
            "events_days": config.events_retention_days,
            "attempts_days": config.attempts_retention_days,
            "resolutions_days": config.resolutions_retention_days,
            "max_default_bytes": MAX_DEFAULT_BYTES,
            "batch": BATCH_ROWS,
        }
        self._keyring = Keyring(config.secret_key)
        self._due_at = dict.fromkeys([*(round_.name for round_ in ROUNDS), _SEALING], 0.0)

    async def run(self) -> None:
        """Do every round when it is due, until cancelled. Connect again when the database is away."""
        while True:
            # The engine logs a database that is away, or read-only after a failover.
            with suppress(psycopg.OperationalError, ReadOnlySqlTransaction):
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, prepare_threshold=None
                ) as connection:
                    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
                    while True:
                        await self.do_due(connection)
                        await anyio.sleep(_TICK_SECONDS)
            await anyio.sleep(_TICK_SECONDS)

    async def do_due(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Do each round that is due. The connection is in autocommit mode."""
        for round_ in ROUNDS:
            work = partial(_repeat, connection, round_, self._parameters)
            await self._do_if_due(round_.name, round_.every_seconds, work)
        await self._do_if_due(_SEALING, _SEALING_EVERY_SECONDS, partial(_seal, connection, self._keyring))

    async def _do_if_due(self, name: str, every_seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        if time.monotonic() < self._due_at[name]:
            return
        pause = every_seconds
        try:
            await work()
        except LockNotAvailable:
            pause = min(_RETRY_SECONDS, every_seconds)
            log.debug("%s: in use, tried again in %d s", name, pause)
        except (psycopg.OperationalError, ReadOnlySqlTransaction):
            raise
        except (psycopg.Error, OutboxError) as error:
            log.warning("%s: %s", name, str(error).splitlines()[0])
        self._due_at[name] = time.monotonic() + pause


async def _repeat(connection: psycopg.AsyncConnection[Any], round_: Round, parameters: Mapping[str, int]) -> None:
    """Repeat a round's transaction while we hold its lock and something is left; `reached`: what the last returned."""
    answer: Any = 0
    while answer is not None:
        async with connection.transaction():
            if not await _is_our_turn(connection, round_.name):
                return
            cursor = await connection.execute(round_.statement, {**parameters, "reached": answer})
            row = await cursor.fetchone()
        answer = row[0] if row and row[0] else None
        if answer is not None:
            log.debug("%s: %s", round_.name, answer)


async def _seal(connection: psycopg.AsyncConnection[Any], keyring: Keyring) -> None:
    """Seal secrets in clear to the newest key, if this relay has its private half; one batch in each transaction."""
    after: UUID | None = UUID(int=0)
    while after is not None and keyring.newest is not None:
        async with connection.transaction():
            if not await _is_our_turn(connection, _SEALING):
                return
            newest = await (await connection.execute(NEWEST_KEY)).fetchone()
            if newest is None or newest[0] not in keyring:
                return
            cursor = await connection.execute(resealing.READ_CLEAR, {"after": after, "batch": resealing.BATCH_ROWS})
            rows = await cursor.fetchall()
            planned = resealing.plan(rows, keyring, SealingKey.of(newest[1]))
            sealed = (await connection.execute(resealing.REPLACE, planned.parameters)).rowcount
        if sealed:
            log.info("sealed %d secrets that lay in clear", sealed)
        after = rows[-1][0] if rows else None


async def _is_our_turn(connection: psycopg.AsyncConnection[Any], name: str) -> bool:
    """Try to take the turn in this transaction, for the round of this name; tell whether we got it."""
    taken = await (await connection.execute(_TURN)).fetchone() is not None
    if not taken:
        log.debug("%s: another relay is at work", name)
    return taken
