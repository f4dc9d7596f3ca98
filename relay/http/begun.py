"""A request that is on its way already: what `HttpSender.send` returns where a connection rested.

Nothing had to be waited for, so nobody needs a task to wait for the answer, which costs more than the request itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from relay.http.conclusion import is_success, needs_new_connection, outcome_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from relay.http.connection import Connection
    from relay.http.pool import Pool, Pools
    from relay.http.sender import Endpoint
    from relay.model.outcome import Outcome

    Reading = Callable[[Outcome], Outcome]

__all__ = ["Begun", "Request", "read_by"]


class Request(NamedTuple):
    """One request, whole; its times are `time.monotonic()`."""

    endpoint: Endpoint
    data: bytes
    started: float
    deadline: float


class Begun:
    """A request that a kept connection has taken, and its answer to come.

    Either await it, as the coroutine that `send` returns in every other case. Or let `answer` call back: then ask for
    `outcome()`, and where that is None await `anew()`. Who cancels `answer`, or does not send anew, calls `abandon()`.
    """

    __slots__ = ("_connection", "_pool", "_pools", "_readings", "_request", "_send_anew", "answer")

    def __init__(
        self,
        pools: Pools,
        pool: Pool,
        connection: Connection,
        request: Request,
        send_anew: Callable[[Pool, Request], Awaitable[Outcome]],
    ) -> None:
        """Write the request. The place in the pool is taken already, and given back here."""
        self._pools, self._pool, self._connection = pools, pool, connection
        self._request, self._send_anew = request, send_anew
        self._readings: tuple[Reading, ...] = ()
        try:
            self.answer = connection.exchange(request.data, request.deadline)
        except BaseException:
            self.abandon()
            raise

    @property
    def started(self) -> float:
        """When the request began, by `time.monotonic()`."""
        return self._request.started

    def outcome(self) -> Outcome | None:
        """Return the outcome; None where the receiver had closed the connection before the request came."""
        result = self.answer.result()
        success = is_success(result)
        self._pools.take_back(self._pool, self._connection, success=success)
        if not success and needs_new_connection(result):
            return None
        self._pools.leave(self._pool)
        outcome = outcome_of(result, self._connection.address, self._request)
        return self._read(outcome) if self._readings else outcome

    async def anew(self) -> Outcome:
        """Send the same request over a new connection."""
        try:
            return self._read(await self._send_anew(self._pool, self._request))
        finally:
            self._pools.leave(self._pool)

    def add_reading(self, reading: Reading) -> None:
        """Let the outcome be what `reading` makes of it, after those that were added before."""
        self._readings += (reading,)

    def _read(self, outcome: Outcome) -> Outcome:
        for reading in self._readings:
            outcome = reading(outcome)
        return outcome

    def abandon(self) -> None:
        """Cut the request: the answer to it must not meet the next one."""
        self._connection.close()
        self._pools.leave(self._pool)

    def __await__(self) -> Generator[Any, Any, Outcome]:
        return self._wait().__await__()

    async def _wait(self) -> Outcome:
        try:
            await self.answer
        except BaseException:
            self.abandon()
            raise
        return self.outcome() or await self.anew()


def read_by(reading: Reading, sent: Awaitable[Outcome]) -> Awaitable[Outcome]:
    """Return the same request, whose outcome is what `reading` makes of the sender's."""
    if isinstance(sent, Begun):
        sent.add_reading(reading)
        return sent
    return _read_when_there(reading, sent)


async def _read_when_there(reading: Reading, sent: Awaitable[Outcome]) -> Outcome:
    return reading(await sent)
