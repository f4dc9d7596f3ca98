"""Remember the suspect that is charged for a crash: the one begun last, until the database has its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.engine.settler import Settler
    from relay.model.delivery import Delivery

__all__ = ["LoneSuspect"]


class LoneSuspect:
    """Follows one suspect from its claim to its settlement; until then it could end the process."""

    def __init__(self, settler: Settler) -> None:
        self._settler = settler
        self._begun: Delivery | None = None
        self._is_out = False

    def note_begun(self, delivery: Delivery) -> None:
        """Note that this suspect is leased here."""
        self._begun, self._is_out = _row_of(delivery), True

    def note_ended(self, delivery: Delivery) -> None:
        """Note that this suspect's result is with the settler."""
        if self._begun is _row_of(delivery):
            self._is_out = False

    @property
    def charged(self) -> Delivery | None:
        """The suspect that would be charged if this process crashed now, or None."""
        if self._begun is not None and not self._is_out and not self._settler.holds(self._begun):
            self._begun = None
        return self._begun


def _row_of(delivery: Delivery) -> Delivery:
    """Return what the database has a row of: for a batch, its first member, which stands for all."""
    return delivery.members[0] if delivery.members else delivery
