"""Keep house while the relay delivers: make and drop leaves (partitions), delete what is old, seal what is in clear.

housekeeping_rounds.py lists what there is to do; relay/secrets/resealing.py seals. Housekeeping has a connection of
its own. Each round repeats one short transaction until it has nothing left to do. A transaction works only while it
holds housekeeping's turn, so that one of several relays does it. It waits at most 50 ms for any other lock and then
tries again a few seconds later, so nothing queues behind housekeeping.

No round stops another one, whatever its error. `outbox.rounds` has the last success and the last error of each. It is
also how relays share the work: a round that another relay did a moment ago is not due.
"""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import psycopg
from psycopg import IsolationLevel
from psycopg.errors import LockNotAvailable

from outbox.errors import OutboxError
from relay.config.database_url import RELAY_NAME
from relay.process.housekeeping_rounds import rounds_of
from relay.secrets.keyring import Keyring
from relay.secrets.resealing import seal_clear
from relay.store import turns
from relay.store.postgres_errors import Meaning, meaning_of, mend_of, one_line
from relay.store.relays import ALIVE_SECONDS
from relay.store.row_security import SET_ROW_SECURITY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from relay.config.options import Config
    from relay.process.housekeeping_rounds import Round

    Sign = Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]

__all__ = ["SEALING", "Housekeeping", "do_round", "seal"]

log = logging.getLogger("relay.process.housekeeping")

# The rounds share one turn: a relay that finds it taken does its rounds a little later.
_TURN = turns.TRY.format(turn="housekeeping")
_TICK_SECONDS = 1.0
_EACH_SECONDS = 0.5  # all together ask twice a second what is due, however many they are
_TICK_MAX_SECONDS = 8.0  # a sign of life is due in twenty
_PUT_OFF_MAX_SECONDS = 30.0
_RETRY_SECONDS = 5.0
_SAME_EVERY_SECONDS = 10.0
SEALING = "secrets in clear"
_SEALING_EVERY_SECONDS = 30.0

_AGES = """
select array_agg(name), array_agg(extract(epoch from clock_timestamp() - succeeded_at)::float8),
       (select count(*) from outbox.relays where seen_at > clock_timestamp() - make_interval(secs => %s))
from outbox.rounds where name = any(%s) and succeeded_at is not null"""
_SUCCEEDED = """
insert into outbox.rounds (name, every_seconds, succeeded_at) values (%s, %s, clock_timestamp())
on conflict (name) do update set every_seconds = excluded.every_seconds, succeeded_at = excluded.succeeded_at"""
_FAILED = """
insert into outbox.rounds (name, every_seconds, failed_at, error) values (%s, %s, clock_timestamp(), %s)
on conflict (name) do update set
    every_seconds = excluded.every_seconds, failed_at = excluded.failed_at, error = excluded.error"""


async def _no_sign(_connection: psycopg.AsyncConnection[Any]) -> None:
    """Tell nobody that this process lives."""


class Housekeeping:
    """The rounds of one relay process, and when each is due again."""

    def __init__(self, config: Config, sign: Sign | None = None) -> None:
        """Keep house by this configuration; `sign` is called between transactions, to give a sign of life."""
        self._sign = sign or _no_sign
        self._conninfo = partial(config.conninfo, application_name=f"{RELAY_NAME} housekeeping")
        self._keyring = Keyring(config.secret_key)
        self._rounds = rounds_of(config)
        self._every = {round_.name: round_.every_seconds for round_ in self._rounds} | {SEALING: _SEALING_EVERY_SECONDS}
        self._due_at = dict.fromkeys(self._every, 0.0)
        self._lost_at: float | None = None
        self._ended: tuple[str, str] | None = None  # the round that ended the last connection, and its error
        self._told_until: dict[str, float] = {}  # by text: until when it is not logged again (monotonic)
        self._relays = 1

    @property
    def pause_seconds(self) -> float:
        """How long to rest between two looks, so that many relays ask no more in all than a few."""
        return max(_TICK_SECONDS, min(_EACH_SECONDS * self._relays, _TICK_MAX_SECONDS))

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
            await connection.set_read_only(False)  # whatever the role's or the database's default is
            await connection.execute(turns.SESSION)
            await self._note_ended(connection)
            while True:
                await self._sign(connection)
                await self.do_due(connection)
                if self._lost_at is not None:
                    log.warning("housekeeping: connected again after %.0f s", time.monotonic() - self._lost_at)
                    self._lost_at = None
                await anyio.sleep(self.pause_seconds)

    def _warn(self, name: str, error: psycopg.Error | OutboxError) -> None:
        """Log the error of a round. One that a person has to mend fails all rounds alike: it is logged now and then."""
        told, now = "; ".join(filter(None, (_told(error), mend_of(error)))), time.monotonic()
        if isinstance(error, psycopg.Error) and meaning_of(error) is Meaning.SETUP:
            if now < self._told_until.get(told, 0.0):
                log.debug("%s: %s", name, told)
                return
            self._told_until[told] = now + _SAME_EVERY_SECONDS
        log.warning("%s: %s", name, told)

    async def _note_ended(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Note the error of the round that the last connection ended in, if it was in one."""
        if self._ended is not None:
            name, told = self._ended
            await _note_failure(connection, name, self._every[name], told)
            self._ended = None

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
            await self._do_if_due(connection, round_.name, partial(do_round, connection, round_, self._sign))
        await self._do_if_due(connection, SEALING, partial(seal, connection, self._keyring))

    async def _put_off_what_others_did(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Put off the rounds that are due here but that another relay did. The first time, a relay does all of them."""
        now = time.monotonic()
        due = [name for name, due_at in self._due_at.items() if 0 < due_at <= now]
        if not due:
            return
        try:
            cursor = await connection.execute(_AGES, (ALIVE_SECONDS, due))
            ((names, ages, self._relays),) = await cursor.fetchall()
        except psycopg.Error as error:
            _raise_if_lost(connection, error)
            return
        least = min(_EACH_SECONDS * self._relays, _PUT_OFF_MAX_SECONDS)
        for name, age in zip(names or (), ages or (), strict=True):
            if age < 0.9 * self._every[name]:
                self._due_at[name] = now + max(self._every[name] - age, least)

    async def _do_if_due(
        self, connection: psycopg.AsyncConnection[Any], name: str, work: Callable[[], Awaitable[bool]]
    ) -> None:
        if time.monotonic() < self._due_at[name]:
            return
        pause = self._every[name]
        try:
            if not await work():  # whoever has the turn may be stopped, or may not get to this round
                pause = min(_RETRY_SECONDS, pause)
        except (psycopg.Error, OutboxError) as error:
            if connection.closed:  # the others have their turn before this one ends the next connection
                self._due_at[name] = time.monotonic() + pause
                self._ended = (name, _told(error))
            _raise_if_lost(connection, error)
            if isinstance(error, LockNotAvailable):
                pause = min(_RETRY_SECONDS, pause)
                log.debug("%s: in use, tried again in %d s", name, pause)
            else:
                self._warn(name, error)
            await _note_failure(connection, name, self._every[name], _told(error))
        self._due_at[name] = time.monotonic() + pause


def _raise_if_lost(connection: psycopg.AsyncConnection[Any], error: Exception) -> None:
    """Raise the error if no other round can do better: there is no connection, or the server takes no writes."""
    if connection.closed or (isinstance(error, psycopg.Error) and meaning_of(error) is Meaning.AWAY):
        raise error


def _told(error: Exception) -> str:
    return str(error).splitlines()[0] if isinstance(error, OutboxError) else one_line(error)


async def _note_failure(connection: psycopg.AsyncConnection[Any], name: str, every: float, error: str) -> None:
    """Keep the error of a round; where even that fails, the log line has to do."""
    try:
        async with connection.transaction():
            await connection.execute(_FAILED, (name, every, error))
    except psycopg.Error as unnoted:
        _raise_if_lost(connection, unnoted)


async def do_round(connection: psycopg.AsyncConnection[Any], round_: Round, sign: Sign) -> bool:
    """Repeat a round's transaction while something is left; the last one notes the success.

    Returns:
        False where another relay has the turn.
    """
    answer: Any = 0
    until = time.monotonic() + round_.seconds
    while answer is not None:
        await sign(connection)
        async with _transaction(connection):
            if not await _is_our_turn(connection, round_.name):
                return False
            cursor = await connection.execute(round_.statement, {**round_.parameters, "after": answer})
            row = await cursor.fetchone()
            answer = row[0] if row and row[0] and time.monotonic() < until else None
            if answer is None:
                await connection.execute(_SUCCEEDED, (round_.name, round_.every_seconds))
        if answer is not None:
            log.debug("%s: %s", round_.name, answer)
    return True


@asynccontextmanager
async def _transaction(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """Run a block as one transaction that waits for no lock longer than 50 ms, and from which no row is hidden."""
    async with connection.transaction():
        await connection.execute(f"select set_config('lock_timeout', '50ms', true), {SET_ROW_SECURITY}")
        yield


async def seal(connection: psycopg.AsyncConnection[Any], keyring: Keyring) -> bool:
    """Seal secrets in clear, if this relay has the newest key's private half; one batch in each transaction.

    Returns:
        False where another relay has the turn.
    """
    after: UUID | None = UUID(int=0)
    while after is not None and keyring.newest is not None:
        async with _transaction(connection):
            if not await _is_our_turn(connection, SEALING):
                return False
            batch = await seal_clear(connection, keyring, after)
            if batch is None:
                return True
            after = batch.last
            if after is None:
                await connection.execute(_SUCCEEDED, (SEALING, _SEALING_EVERY_SECONDS))
        if batch.sealed:
            log.info("sealed %d secrets that lay in clear", batch.sealed)
    return True


async def _is_our_turn(connection: psycopg.AsyncConnection[Any], name: str) -> bool:
    """Try to take the turn in this transaction, for the round of this name; tell whether we got it."""
    taken = await (await connection.execute(_TURN)).fetchone() is not None
    if not taken:
        log.debug("%s: another relay is at work", name)
    return taken
