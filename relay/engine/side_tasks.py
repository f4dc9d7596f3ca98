"""What an engine does beside looking for work, each task guarded by itself: an error of one stops no delivery."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import psycopg

from relay.store.postgres_errors import Meaning, is_new_condition, meaning_of, mend_of, one_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["BATCHES", "LIMITS", "SideTasks"]

log = logging.getLogger("relay.engine")

LIMITS, BATCHES = "the look at limits", "the claim of batches"
AGAIN_SECONDS = 1.0
SAY_EVERY_SECONDS = 10.0


class SideTasks:
    """Runs tasks by name. One that failed, say on a damaged table, is left out for a second."""

    def __init__(self) -> None:
        self._failed: dict[str, float] = {}  # until when each that failed is left out
        self._said: dict[str, float] = {}

    def rests_until(self, name: str) -> float:
        """Return the monotonic time before which this task is left out; 0 where it is not."""
        return self._failed.get(name, 0.0)

    async def run(self, name: str, task: Callable[[], Awaitable[bool | None]]) -> bool:
        """Run a task unless it failed a moment ago; return what it returns.

        Raises the errors that mean that the database is away, or that need another connection: they stop everybody.
        """
        if self._failed and time.monotonic() < self._failed.get(name, 0.0):
            return False
        try:
            done = bool(await task())
        except psycopg.Error as error:
            if meaning_of(error) is Meaning.AWAY or is_new_condition(error):
                raise
            self._note(name, error)
            return False
        if self._failed:
            self._failed.pop(name, None)
        return done

    def _note(self, name: str, error: psycopg.Error) -> None:
        """Note a failure; log it, at most one line in ten seconds for each task, with the mend where there is one."""
        now = time.monotonic()
        self._failed[name] = now + AGAIN_SECONDS
        if now >= self._said.get(name, -SAY_EVERY_SECONDS) + SAY_EVERY_SECONDS:
            self._said[name] = now
            told = "; ".join(filter(None, (one_line(error), mend_of(error))))
            log.warning("%s failed and is tried again every second; deliveries go on: %s", name, told)
