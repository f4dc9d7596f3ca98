"""Notice a migration under a running relay: go on beside one that allows it, end at one that is for newer code."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import psycopg

from outbox.schema.compatibility import NEWER, known_version, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SchemaWatch"]

log = logging.getLogger("relay.process.schema")

EVERY_SECONDS = 5.0


class SchemaWatch:
    """What one process knows of migrations that came after its own."""

    def __init__(self, refuse: Callable[[], None]) -> None:
        """Call `refuse` once, when the schema may not be used any more."""
        self._refuse = refuse
        self._look_at = time.monotonic() + EVERY_SECONDS  # the start has looked just now
        self._newest = known_version()
        self.is_refused = False

    async def look(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Look when it is time. The connection is in autocommit mode and outside of a transaction."""
        if self.is_refused or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + EVERY_SECONDS
        try:
            newer = await (await connection.execute(NEWER.format(known=known_version()))).fetchall()
        except psycopg.ProgrammingError as error:  # no schema, or no right to read it: others say so
            log.debug("migrations cannot be read: %s", error)
            return
        self._heed(newer)

    def _heed(self, newer: list[tuple[int, int | None]]) -> None:
        newest = max((version for version, _ in newer), default=known_version())
        if reason := refusal(newer, known_version()):
            self.is_refused = True
            log.error("%s; what is under way may finish, then this process ends", reason)
            self._refuse()
        elif newest != self._newest:
            log.info("the outbox schema is at version %d, newer than this relay, which may go on beside it", newest)
        self._newest = newest
