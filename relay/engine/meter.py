"""What an engine tells whoever measures it. The default measures nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.settlement import Settlement

__all__ = ["Meter", "Unmetered"]


class Meter(Protocol):
    """Takes what happened, after the database has it. It never raises, and never waits."""

    def settled(self, batch: Sequence[Settlement], buried: int, now: float) -> None:
        """Take results that were stored, how many became dead letters, and the database's time in Unix seconds."""

    def resolved(self, events: int, deliveries: int) -> None:
        """Take how many events were resolved, and into how many deliveries."""


class Unmetered:
    """Measures nothing."""

    def settled(self, batch: Sequence[Settlement], buried: int, now: float) -> None:
        """Do nothing."""

    def resolved(self, events: int, deliveries: int) -> None:
        """Do nothing."""
