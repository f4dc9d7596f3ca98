"""Endpoints that sent bytes which nobody had asked for: counted, logged, and no connection to them is kept for a while.

Such bytes may come just after the next request was written, and nothing tells them from its answer then. Whoever sent
some once is likely to do it again, so each of its requests gets a connection of its own until it was quiet for long.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING
from uuid import UUID

from outbox.ids import text_id

if TYPE_CHECKING:
    from relay.http.pool import Key

__all__ = ["Irregularities"]

log = logging.getLogger("relay.http")

DISTRUSTED_SECONDS = 600.0
MAX_DISTRUSTED = 10_000
"""Endpoints remembered at once; beyond it, the one that was noted first is forgotten."""

LINE_EVERY_SECONDS = 10.0


class Irregularities:
    """Counts them for one sender; `count` is how many connections ended for that since it began."""

    def __init__(self) -> None:
        self.count = 0
        self._until: dict[Key, float] = {}
        self._logged_at = -LINE_EVERY_SECONDS

    def note(self, key: Key) -> None:
        """Count one connection to this endpoint that ended for that; log at most one line in ten seconds."""
        now = time.monotonic()
        self.count += 1
        self._until.pop(key, None)
        self._until[key] = now + DISTRUSTED_SECONDS
        if len(self._until) > MAX_DISTRUSTED:
            del self._until[next(iter(self._until))]
        if now >= self._logged_at + LINE_EVERY_SECONDS:
            self._logged_at = now
            log.warning(
                "%s sent bytes that nobody asked for: closed, and no connection to it is kept for %.0f s"
                " (%d such connections so far)", _name(key), DISTRUSTED_SECONDS, self.count,
            )  # fmt: skip

    def distrusts(self, key: Key) -> bool:
        """Tell whether no connection to this endpoint may be kept."""
        if not self._until or key not in self._until:  # nearly always
            return False
        if time.monotonic() < self._until[key]:
            return True
        del self._until[key]
        return False


def _name(key: Key) -> str:
    owner = f"{text_id('sub', UUID(bytes=key.owner))}: " if key.owner else ""
    return f"{owner}{key.host}, port {key.port},"
