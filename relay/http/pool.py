"""Connections that rest between requests, by endpoint, and how many sends an endpoint may have under way."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from relay.http.irregularities import Irregularities

if TYPE_CHECKING:
    from relay.http.connection import Connection

__all__ = ["MAX_RESTING", "Key", "Pool", "Pools"]


class Key(NamedTuple):
    """What decides whether two requests may share a connection.

    `tls` is the digest of own TLS. `owner` is the subscription: what an endpoint says out of turn may then be taken for
    the answer to a request of its own, and never for the answer to a stranger's.
    """

    scheme: str
    host: str
    port: int
    tls: bytes
    owner: bytes


MAX_RESTING = 256
"""Resting connections of all endpoints together; beyond it, the one that has rested longest is closed."""


class Pool:
    """One endpoint: its places, and its stack of resting connections, where the one used last is used next."""

    __slots__ = ("_free", "_places", "_waiting", "failed_at", "key", "resting")

    def __init__(self, key: Key, places: int) -> None:
        self.key = key
        self.resting: list[Connection] = []
        self.failed_at = -math.inf  # monotonic time of the last answer that was not 2xx, or of none
        self._free = self._places = places
        self._waiting: deque[asyncio.Future[None]] = deque()

    def enter_at_once(self) -> bool:
        """Take a place if one is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def enter(self, deadline: float) -> bool:
        """Take a place, to be given back by `leave`; False when none became free by the deadline (loop time)."""
        if self.enter_at_once():
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException as error:
            self._stop_waiting(turn)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def leave(self) -> None:
        """Give the place to who has waited longest, or back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    @property
    def waiting(self) -> int:
        """Return how many sends wait for a place."""
        return len(self._waiting)

    def is_unused(self) -> bool:
        """Tell whether nothing is under way and nothing rests."""
        return self._free == self._places and not self.resting

    def _stop_waiting(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self.leave()
        else:
            self._waiting = deque(other for other in self._waiting if other is not turn)


class Pools:
    """The pools of all endpoints: made when first needed, dropped when unused, so that they cannot pile up."""

    def __init__(self, places: int, max_resting: int) -> None:
        self._places, self._max_resting = places, max_resting
        self._by_key: dict[Key, Pool] = {}
        self._resting: dict[Connection, Pool] = {}  # the one that has rested longest comes first
        self._leaving: set[Connection] = set()
        self.irregularities = Irregularities()

    @property
    def endpoints(self) -> int:
        """Return how many endpoints have a pool."""
        return len(self._by_key)

    @property
    def resting(self) -> int:
        """Return how many connections rest."""
        return len(self._resting)

    def of(self, key: Key) -> Pool:
        """Return the pool of this endpoint."""
        pool = self._by_key.get(key)
        if pool is None:
            pool = self._by_key[key] = Pool(key, self._places)
        return pool

    def take(self, pool: Pool) -> Connection | None:
        """Return a resting connection that may be used again; those that may not are closed."""
        while pool.resting:
            connection = pool.resting.pop()
            del self._resting[connection]
            if connection.is_reusable():
                return connection
            self._see_off(connection)
        return None

    def take_for_retry(self, pool: Pool) -> Connection | None:
        """Return a resting connection that was dialled for a retry since the endpoint last failed.

        Any other may lead to where the name pointed when the delivery failed: here, or in another process.
        """
        fit = [each for each in pool.resting if each.for_retry and each.dialled_at > pool.failed_at]
        for connection in reversed(fit):
            pool.resting.remove(connection)
            del self._resting[connection]
            if connection.is_reusable():
                return connection
            self._see_off(connection)
        return None

    def take_back(self, pool: Pool, connection: Connection, *, success: bool) -> None:
        """Let a connection rest after a success, and close it otherwise."""
        if not success:
            pool.failed_at = time.monotonic()
            connection.close()
        elif connection.is_open():
            if self.irregularities.distrusts(pool.key):
                connection.close()
            else:
                self._put(pool, connection)

    def leave(self, pool: Pool) -> None:
        """Give a place of this pool back."""
        pool.leave()
        if not pool.resting:
            self.tidy(pool)

    def note_end(self, key: Key, connection: Connection) -> None:
        """Forget a connection that has ended; note the endpoint if that sent what nobody had asked for."""
        self.forget(connection)
        if connection.unasked:
            self.irregularities.note(key)

    def _put(self, pool: Pool, connection: Connection) -> None:
        connection.rest()
        pool.resting.append(connection)
        self._resting[connection] = pool
        if len(self._resting) > self._max_resting:
            oldest = next(iter(self._resting))
            self.forget(oldest)
            oldest.close()

    def forget(self, connection: Connection) -> None:
        """Drop a connection that has ended, if it was resting."""
        self._leaving.discard(connection)
        pool = self._resting.pop(connection, None)
        if pool is not None:
            pool.resting.remove(connection)
            self.tidy(pool)

    def tidy(self, pool: Pool) -> None:
        """Drop the pool when it is unused."""
        if pool.is_unused():
            self._by_key.pop(pool.key, None)

    def close_resting(self) -> None:
        """Close every connection that is not in use."""
        for connection in (*self._resting, *self._leaving):
            self.forget(connection)
            connection.close()

    def _see_off(self, connection: Connection) -> None:
        connection.leave()
        if connection.is_open():
            self._leaving.add(connection)
