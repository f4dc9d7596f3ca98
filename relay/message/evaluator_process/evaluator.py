"""Ask the process that evaluates what is large: started when first asked, one question at a time, killed when late.

The loop waits for nothing here: the pipes are written and read in a thread, which is asleep meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from relay.message.evaluator_process.child import COMMAND, Child
from relay.message.evaluator_process.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["DEADLINE_SECONDS", "LARGE_BYTES", "PING", "Evaluator", "EvaluatorError", "NotStartedError"]

log = logging.getLogger("relay.evaluator")

LARGE_BYTES = 32 * 1024
"""Of a payload: from here on reading it and evaluating can hold the loop for more than five milliseconds.

Reading short numbers with a point, the slowest there is, takes 1.7 ms at this size, and 20,000 steps 2 to 3 ms.
"""
DEADLINE_SECONDS = 5.0  # the most that counted steps allow at the largest payload is a tenth of a second
START_SECONDS = 30.0
START_AGAIN_SECONDS = 10.0

PING = b""
"""A request that is answered by itself: the process has started."""


class EvaluatorError(Exception):
    """The process ended, or was killed because it took too long, while it was asked. The text says which."""


class NotStartedError(Exception):
    """The process cannot be started; the text says why. Nothing was evaluated."""


class Evaluator:
    """The one process of this relay process that evaluates; there is none until the first question."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._child: Child | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._refusal, self._refused_until = "", 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process id; None where it does not run."""
        return self._child.pid if self._child is not None else None

    @asynccontextmanager
    async def turn(self, tenant: str | None) -> AsyncIterator[Evaluator]:
        """Wait for a turn of this tenant: only who has it asks. None: fan_out, which all tenants wait for; the next."""
        async with self._turns.of(tenant):
            yield self

    async def ask(self, request: bytes, seconds: float) -> bytes:
        """Return the answer to a request of requests.py, which may take so many seconds.

        Raises:
            EvaluatorError: the process ended, or the time passed, which ends it.
            NotStartedError: there is none, and none can be started.
        """
        if self._child is not None and not self._child.is_alive:  # killed while nobody asked: no request is to blame
            await self._end()
        child = self._child or await self._start()
        return await self._exchange(child, request, seconds)

    async def close(self) -> None:
        """End the process, if there is one; start none any more."""
        self._closed = True
        await self._end()
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def _start(self) -> Child:
        if self._closed:
            raise NotStartedError("the relay stops")
        if time.monotonic() < self._refused_until:
            raise NotStartedError(self._refusal)
        try:
            self._child = child = await self._in_thread(Child)
            await self._exchange(child, PING, START_SECONDS)
        except (EvaluatorError, OSError) as error:
            command = shlex.join([sys.executable, *COMMAND])
            self._refusal = f"the process for large transformations, filters and formats does not start: {error}"
            self._refused_until = time.monotonic() + START_AGAIN_SECONDS
            log.error("%s; this shows why: %s </dev/null", self._refusal, command)
            raise NotStartedError(self._refusal) from None
        log.info("process %d evaluates what is large for process %d", child.pid, os.getpid())
        return child

    async def _exchange(self, child: Child, request: bytes, seconds: float) -> bytes:
        timer = asyncio.get_running_loop().call_later(seconds, child.kill)
        began = time.monotonic()
        answer = None
        try:
            answer = await self._in_thread(lambda: child.ask(request))
        finally:
            timer.cancel()
            if answer is None:  # also where the waiting was cancelled: what comes later is no answer to another
                child.kill()
                self._child = None
        if answer is None:
            late = time.monotonic() - began >= seconds
            raise EvaluatorError(f"took longer than {seconds:.0f} seconds" if late else f"ended {child.ended_by}")
        return answer

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            await self._in_thread(child.end)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "relay-evaluator")
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
