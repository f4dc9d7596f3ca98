"""How much a filter may do with one event."""

from __future__ import annotations

__all__ = ["OverBudget", "Work"]


class OverBudget(Exception):  # noqa: N818 - says what happened
    """A filter has used up its work on this event."""


class Work:
    """How many steps are left; a step is one element of a list, or one condition that is asked of an object in it.

    Only lists make a filter slow: without one each of its conditions, 200 at most, is asked once.
    """

    __slots__ = ("left",)

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Use up so many steps. Raises OverBudget."""
        self.left -= steps
        if self.left < 0:
            raise OverBudget
