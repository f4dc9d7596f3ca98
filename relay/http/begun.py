"""A request that is on its way already: what `HttpSender.send` returns where a connection rested.

Nothing had to be waited for, so nobody needs a task to wait for the answer, which costs more than the request itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.http.conclusion import is_success, needs_new_connection, outcome_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from relay.http.connection import Connection
    from relay.http.pool import Pool, Pools
    from relay.http.reader import Answer, Lost
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

    Either await it, as the coroutine that `send` returns in every other case. Or have it call back by `when_answered`:
    then ask for `outcome()`, and where that is None await `anew()`. Who wants no answer, or does not send anew, calls
    `abandon()`.

    It is no future: a call back by way of the loop would cost more than all that follows from an answer.
    """

    __slots__ = ("_answer", "_call_back", "_connection", "_pool", "_pools", "_readings", "_request", "_send_anew")

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
        self._answer: Answer | Lost | None = None
        self._call_back: Callable[[Begun], object] | None = None
        try:
            connection.exchange(request.data, request.deadline, self._answered)
        except BaseException:
            self.abandon()
            raise

    @property
    def started(self) -> float:
        """When the request began, by `time.monotonic()`."""
        return self._request.started

    def when_answered(self, call_back: Callable[[Begun], object]) -> None:
        """Call back, from the loop, once there is an answer or none will come. `call_back` must not raise."""
        self._call_back = call_back
        if self._answer is not None:
            asyncio.get_running_loop().call_soon(call_back, self)

    def _answered(self, answer: Answer | Lost) -> None:
        self._answer = answer
        if self._call_back is not None:
            self._call_back(self)

    def outcome(self) -> Outcome | None:
        """Return the outcome; None where the receiver had closed the connection before the request came.

        Ask once, when it has called back.
        """
        result = self._answer
        assert result is not None
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
        answered = asyncio.Event()
        self.when_answered(lambda _: answered.set())
        try:
            await answered.wait()
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
