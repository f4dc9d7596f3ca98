"""What one evaluation may cost, counted in steps.

Time is not asked: the same event and expression end in the same way on every machine and at every attempt. A step is
about a tenth of a microsecond. Whatever takes longer for larger values counts more of them, before it begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_STEPS", "Budget", "Compiled", "Run", "TransformationError"]

C = TypeVar("C", "list[Any]", "dict[str, Any]")

MAX_STEPS = 20_000


class TransformationError(Exception):
    """An event cannot be transformed. The message names no value of the event."""


class Budget:
    """The steps that are left of an evaluation, the payload it is about, and which arrays and objects it made.

    made: by id(). What the payload holds is a tree, no larger than its text; what is made can hold a thing many times.
    """

    __slots__ = ("data", "left", "made", "payload")

    def __init__(self, payload: str, data: Any, steps: int = MAX_STEPS) -> None:
        self.payload = payload
        self.data = data  # the payload's value
        self.left = steps
        self.made: set[int] = set()

    def spend(self, steps: int) -> None:
        """Take so many steps. Raises TransformationError when there are not enough."""
        self.left -= steps
        if self.left < 0:
            raise TransformationError(
                f"it needs more than {MAX_STEPS:,} steps for this event; select less of it, or simplify the expression"
            )

    def make(self, container: C) -> C:
        """Note a new array or object, and return it."""
        self.made.add(id(container))
        return container


Run: TypeAlias = "Callable[[Any, Budget], Any]"


class Compiled(NamedTuple):
    """An expression: `run` takes a value to its result; one call of it has this many `steps`, loops apart."""

    run: Run
    steps: int
