"""Which successes of an endpoint have to be written into outbox.health: those that change something there.

Of an endpoint that answers, nothing. After a failure (here, or noted by another relay) the next success ends what is
noted as failing; for a window's time more the successes are half of the failure rate.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.engine.endpoint import Endpoint

__all__ = ["NOTED_SECONDS", "Ailing", "note_health"]

NOTED_SECONDS = 120.0
"""Successes are counted for so long after a failure: longer than the breaker's window, unless that was set longer."""


class Ailing:
    """An endpoint that failed, until it has answered for a while."""

    __slots__ = ("_failed_at", "_owes_success")

    def __init__(self) -> None:
        self.note_failure()

    def note_failure(self) -> None:
        """Note that it failed, or that another relay noted so."""
        self._failed_at = time.monotonic()
        self._owes_success = True  # the next success is written whenever it comes

    def take_success(self) -> bool:
        """Tell whether a success has to be written."""
        noted = self._owes_success or time.monotonic() < self._failed_at + NOTED_SECONDS
        self._owes_success = False
        return noted


def note_health(endpoint: Endpoint, *, failed: bool) -> bool:
    """Tell whether the end of an attempt says something of its endpoint that has to be written."""
    if failed:
        if endpoint.ailing is None:
            endpoint.ailing = Ailing()
        else:
            endpoint.ailing.note_failure()
        return True
    if endpoint.ailing is None:
        return False
    noted = endpoint.ailing.take_success()
    if not noted:
        endpoint.ailing = None
    return noted
