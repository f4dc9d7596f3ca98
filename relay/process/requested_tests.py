"""Answer test messages that somebody asked for: what the sweep of the engine noticed is taken here, a few at a time.

They have connections of their own, to the database and to endpoints, so that no delivery waits for one.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

import anyio
from sqlalchemy.exc import SQLAlchemyError

from outbox.errors import OutboxError
from relay.operations.connection import Database
from relay.operations.endpoint_tests.requested_tests import answer_one
from relay.operations.endpoint_tests.test_and_check import network_of

if TYPE_CHECKING:
    from relay.config.options import Config
    from relay.operations.endpoint_tests.test_and_check import Network

__all__ = ["RequestedTests"]

log = logging.getLogger("relay.process.requested_tests")

MOST_AT_ONCE = 4
PAUSE_SECONDS = 1.0  # after an error, which the next sweep would meet again at once


class RequestedTests:
    """The test messages of one process. `note` may be called as often as one is seen to wait."""

    def __init__(self, config: Config) -> None:
        """Keep the configuration; the first message opens connections."""
        self._config = config
        self._database = Database(config)
        self._requested = asyncio.Event()
        self._busy = 0

    def note(self) -> None:
        """Note that one waits."""
        self._requested.set()

    async def run(self) -> None:
        """Answer what is noted, until cancelled. What was taken and is not answered then has no answer."""
        await self._requested.wait()  # for most relays for ever; a way out of its own reads the machine's authorities
        out = network_of(self._config)
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    await self._requested.wait()
                    self._requested.clear()
                    if self._busy < MOST_AT_ONCE:
                        self._busy += 1
                        tasks.start_soon(partial(self._answer, out))
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(PAUSE_SECONDS):
                await out.sender.close()

    async def _answer(self, out: Network) -> None:
        """Answer one after the other until none waits. The next one is noted, so that others help meanwhile."""
        try:
            while await answer_one(self._database, None, out):
                self._requested.set()
        except (OutboxError, SQLAlchemyError, OSError) as error:
            log.warning("test message: %s", str(error).splitlines()[0])
            await anyio.sleep(PAUSE_SECONDS)
        finally:
            self._busy -= 1
