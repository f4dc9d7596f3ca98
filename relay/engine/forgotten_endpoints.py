"""Which of the endpoints that were forgotten answered when they were last asked."""

from __future__ import annotations

from array import array

__all__ = ["Answered"]

PLACES = 2**18


class Answered:
    """A set of ids in bounded memory, 8 bytes a place: one that is added may take the place of another.

    So a few are lost where very many are kept, and none is found that was not added.
    """

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: array[int] | None = None  # made with the first id: most processes never forget any

    def __contains__(self, identity: bytes) -> bool:
        return self._places is not None and self._places[_place(identity)] == _mark(identity)

    def note(self, identity: bytes, *, answers: bool) -> None:
        """Add an id, or take it out."""
        if self._places is None:
            self._places = array("Q", bytes(8 * PLACES))
        if answers:
            self._places[_place(identity)] = _mark(identity)
        elif identity in self:
            self._places[_place(identity)] = 0

    def clear(self) -> None:
        """Take all out."""
        self._places = None


def _mark(identity: bytes) -> int:
    """Return the random half of a UUIDv7; 0 stands for an empty place."""
    return int.from_bytes(identity[8:], "big") or 1


def _place(identity: bytes) -> int:
    return _mark(identity) % PLACES
