"""What each function of JMESPath takes: the kinds of its arguments, and which of them is an expression (&…)."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ANY", "EXPRESSION", "SIGNATURES", "Signature"]

ANY = "any value"
EXPRESSION = "an expression (&…)"
_NUMBER, _STRING, _ARRAY, _OBJECT = "a number", "a string", "an array", "an object"


class Signature(NamedTuple):
    """The kinds of a function's arguments in order. `repeats`: the last may come any number of times."""

    arguments: tuple[tuple[str, ...], ...]
    repeats: bool = False

    @property
    def wanted(self) -> str:
        """How many arguments, in words."""
        count = len(self.arguments)
        return f"{'at least ' if self.repeats else ''}{count} argument{'' if count == 1 else 's'}"

    def takes(self, count: int) -> bool:
        """Tell whether it can be called with so many arguments."""
        return count >= len(self.arguments) if self.repeats else count == len(self.arguments)

    def kinds_of(self, place: int) -> tuple[str, ...]:
        """Return the kinds that the argument at this place, from 0, may have."""
        return self.arguments[min(place, len(self.arguments) - 1)]


def _takes(*kinds: str | tuple[str, ...], repeats: bool = False) -> Signature:
    return Signature(tuple((kind,) if isinstance(kind, str) else kind for kind in kinds), repeats)


SIGNATURES = {
    "abs": _takes(_NUMBER),
    "avg": _takes(_ARRAY),
    "ceil": _takes(_NUMBER),
    "contains": _takes((_ARRAY, _STRING), ANY),
    "ends_with": _takes(_STRING, _STRING),
    "floor": _takes(_NUMBER),
    "join": _takes(_STRING, _ARRAY),
    "keys": _takes(_OBJECT),
    "length": _takes((_STRING, _ARRAY, _OBJECT)),
    "map": _takes(EXPRESSION, _ARRAY),
    "max": _takes(_ARRAY),
    "max_by": _takes(_ARRAY, EXPRESSION),
    "merge": _takes(_OBJECT, repeats=True),
    "min": _takes(_ARRAY),
    "min_by": _takes(_ARRAY, EXPRESSION),
    "not_null": _takes(ANY, repeats=True),
    "reverse": _takes((_ARRAY, _STRING)),
    "sort": _takes(_ARRAY),
    "sort_by": _takes(_ARRAY, EXPRESSION),
    "starts_with": _takes(_STRING, _STRING),
    "sum": _takes(_ARRAY),
    "to_array": _takes(ANY),
    "to_number": _takes(ANY),
    "to_string": _takes(ANY),
    "type": _takes(ANY),
    "values": _takes(_OBJECT),
}
"""Every function there is, by name: those of the JMESPath specification."""
