"""Many filters asked about one event: those that ask for an equality are looked up, not tried one by one.

Ten thousand customers with a filter each nearly always name themselves in it: `{"payload": {"customer": "c-17"}}`. By
the path and the value that such a filter needs, an event finds the few that can match it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from typing import Any

from outbox.subscriptions.filters.event import FilteredEvent, UnreadablePayload
from outbox.subscriptions.filters.filters import Filter
from outbox.subscriptions.filters.values import MISSING

__all__ = ["FilterSet"]

_Named = tuple[bytes, "Filter"]


class FilterSet:
    """Filters by their names (hashes), which nobody changes afterwards. `names` are all of them."""

    def __init__(self, filters: Mapping[bytes, Filter]) -> None:
        self.filters = filters
        self.names: AbstractSet[bytes] = filters.keys()
        self._others: list[_Named] = []
        self._by_path: dict[tuple[str, ...], dict[object, list[_Named]]] = {}
        for named in filters.items():
            self._put(named)

    def _put(self, named: _Named) -> None:
        equality = named[1].equality
        if equality is None:
            self._others.append(named)
            return
        path, scalar = equality
        self._by_path.setdefault(path, {}).setdefault(_place_of(scalar), []).append(named)

    @cached_property
    def digest(self) -> bytes:
        """What tells these filters from others: a hash of their names, in 32 bytes.

        One without a text could not be read, and may be another time.
        """
        names = sorted(name if one.text else name + b"?" for name, one in self.filters.items())
        return sha256(b"".join(names)).digest()

    @property
    def texts(self) -> dict[bytes, str]:
        """The canonical JSON of each, by its name."""
        return {name: one.text for name, one in self.filters.items()}

    @property
    def cost(self) -> int:
        """How many filters are asked of an event, where each value at a path has one."""
        return len(self._others) + len(self._by_path)

    def candidates(self, event: FilteredEvent) -> Iterator[_Named]:
        """Return the filters that may match this event: no other one does."""
        yield from self._others
        for path, by_value in self._by_path.items():
            value = _value_at(path, event)
            if value is _UNSURE:
                for found in by_value.values():
                    yield from found
            else:
                yield from by_value.get(value, ())


_UNSURE = object()


def _value_at(path: tuple[str, ...], event: FilteredEvent) -> object:
    """Return the place of the scalar at a path; _UNSURE where there is a list on the way, into which filters look."""
    value: Any
    try:
        value = event.field(path[0])
    except UnreadablePayload:
        return _UNSURE
    for name in path[1:]:
        if type(value) is list:
            return _UNSURE
        value = value.get(name, MISSING) if type(value) is dict else MISSING
    return _UNSURE if type(value) is list else _place_of(value)


def _place_of(value: Any) -> object:
    """Return a key of a dict that keeps 1, "1" and true apart; objects and missing fields have one without filters."""
    kind = type(value)
    if kind is str:
        return value
    if kind is int or kind is Decimal:
        return "number", value
    return ("other", value) if kind is bool or value is None else MISSING
