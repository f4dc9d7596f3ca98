"""What could not be written because somebody holds its row: set aside, so that it stops nobody else."""

from __future__ import annotations

import logging
import time
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.model.delivery import Delivery
    from relay.model.settlement import Settlement

__all__ = ["SetAside"]

log = logging.getLogger("relay.engine")

AGAIN_SECONDS = 1.0
SAY_EVERY_SECONDS = 10.0


class SetAside:
    """Results and releases that wait for a lock which another transaction holds, in the order of their turns.

    releases: each with the seconds after which its delivery becomes due.
    """

    def __init__(self) -> None:
        self._results: dict[bytes, Settlement] = {}
        self._again_at = 0.0
        self._said_at = -SAY_EVERY_SECONDS
        self.releases: list[tuple[Delivery, float]] = []

    def __len__(self) -> int:
        return len(self._results) + len(self.releases)

    def __contains__(self, delivery_id: bytes) -> bool:
        return delivery_id in self._results

    @property
    def seconds_left(self) -> float | None:
        """In how many seconds to try again; None where nothing is set aside."""
        return max(0.0, self._again_at - time.monotonic()) if self else None

    def put_last(self, results: Iterable[Settlement] = (), releases: Iterable[tuple[Delivery, float]] = ()) -> None:
        """Set these aside, behind those that are."""
        if not self:
            self._again_at = time.monotonic() + AGAIN_SECONDS
        for one in results:
            self._results.pop(one.delivery.id, None)
            self._results[one.delivery.id] = one
        self.releases += releases

    def first(self, count: int) -> list[Settlement]:
        """Return the results whose turn it is."""
        return list(islice(self._results.values(), count))

    def remove(self, delivery_id: bytes) -> None:
        """Note that a result is in the database."""
        self._results.pop(delivery_id, None)

    def note_try(self, *, all_written: bool) -> None:
        """Note that a try has ended; log how many wait on, at most a line in ten seconds.

        `all_written`: nobody held any of those whose turn it was, so the next ones need not wait.
        """
        now = time.monotonic()
        self._again_at = now if all_written else now + AGAIN_SECONDS
        if self and now >= self._said_at + SAY_EVERY_SECONDS:
            self._said_at = now
            log.warning("%d results wait for rows that another transaction holds locked; the others go on", len(self))
