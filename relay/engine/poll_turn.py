"""Share the looking of idle relays: one has the turn and looks often, the others look rarely and sweep more rarely.

The turn is a row of the database that its holder renews twice a second while it is idle. When it dies, the next of the
others that looks takes the turn: together these look twice a second, however many they are, so that takes one second
and a half on average. A relay that found work looks often anyway, for a while: the turn only matters to those that
find nothing.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from relay.engine.poll_interval import pause_seconds
from relay.store.poll_turn import TURN_SECONDS

if TYPE_CHECKING:
    from relay.store.store import Store

__all__ = ["PollTurn"]

AFTER_WORK_SECONDS = 2.0  # a relay without the turn looks often for so long after its own last work
STANDBY_SECONDS = 0.5  # between two looks of the relays without the turn, all together
STANDBY_MAX_SECONDS = 60.0
STANDBY_SWEEP_SECONDS = 5.0  # between two whole steps of the relays without the turn, all together


class PollTurn:
    """One process's view of the turn. `is_ours` is what it knew at its last look."""

    def __init__(self, store: Store, *, processes: int, slow_seconds: float) -> None:
        """Begin without the turn.

        Args:
            store: its database.
            processes: how many processes `relay run` started here.
            slow_seconds: the longest rest of the relay that has the turn.
        """
        self._store = store
        self._processes = processes
        self._slow_seconds = slow_seconds
        self._id = uuid.uuid4()
        self._relays = processes
        self._next_look = self._next_sweep = 0.0
        self.is_ours = False

    async def look(self) -> None:
        """Take or keep the turn, if it is time to; a process asks that finds nothing to do."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self.is_ours, relays = await self._store.take_poll_turn(self._id)
        self._relays = max(relays, self._processes)
        self._next_look = now + TURN_SECONDS / 2

    def stands_by(self, quiet_seconds: float) -> bool:
        """Tell whether a look for new work is enough, since another has the turn; now and then it is not."""
        if self.is_ours or quiet_seconds < AFTER_WORK_SECONDS:
            return False
        now = time.monotonic()
        if now < self._next_sweep:
            return True
        self._next_sweep = now + STANDBY_SWEEP_SECONDS * self._others
        return False

    @property
    def _others(self) -> int:
        return max(1, self._relays - 1)

    def pause_seconds(self, quiet_seconds: float, random_number: float) -> float:
        """Return the rest after a look that found nothing; the arguments are those of poll_interval.pause_seconds."""
        if self.is_ours:
            return pause_seconds(quiet_seconds, 1, random_number, self._slow_seconds)
        if quiet_seconds < AFTER_WORK_SECONDS:
            return pause_seconds(quiet_seconds, self._processes, random_number, self._slow_seconds)
        return min(STANDBY_SECONDS * self._others, STANDBY_MAX_SECONDS) * (0.8 + 0.4 * random_number)
