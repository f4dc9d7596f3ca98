"""The event types that customers may choose from: names, descriptions, groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outbox._text import brief, nearest
from outbox.errors import ArgumentError, SubscriptionError
from outbox.recording.arguments import checked_type

__all__ = ["OfferedType", "OfferedTypes"]


@dataclass(frozen=True, slots=True)
class OfferedType:
    """An event type: its name, what it tells, and the group that it is shown in, '' without one."""

    name: str
    description: str
    group: str


class OfferedTypes:
    """The types that there are, in the order given.

    They come as a mapping from a type to its description, or from a group to such a mapping; or as objects that have
    `name` or `type`, and may have `description` and `group`. A catalogue, which is neither a mapping nor a list, is
    asked each time, since types may join it later.
    """

    def __init__(self, given: object) -> None:
        self._given = list(given) if isinstance(given, Iterator) else given
        self._fixed = None if _is_catalogue(self._given) else _by_name(self._given)
        if self._fixed == {}:
            raise ArgumentError("event_types: there are none; give a mapping such as {'order.placed': 'An order came'}")

    def __iter__(self) -> Iterator[OfferedType]:
        return iter(self._known().values())

    def check(self, field: str, names: Iterable[str]) -> list[str]:
        """Return the names, each once. Raises SubscriptionError for one that is no type of ours."""
        wanted, known = list(dict.fromkeys(names)), self._known()
        if not wanted:
            raise SubscriptionError(f"{field}: is empty; give at least one event type")
        for name in wanted:
            if name not in known:
                raise SubscriptionError(f"{field}: {brief(name)} is no event type; {_mend(name, list(known))}")
        return wanted

    def _known(self) -> dict[str, OfferedType]:
        return _by_name(self._given) if self._fixed is None else self._fixed


def _mend(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return f"did you mean {close!r}?" if close else f"there are {', '.join(known[:20])}"


def _is_catalogue(given: object) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, Mapping | Sequence | set | frozenset)


def _by_name(given: object) -> dict[str, OfferedType]:
    return {checked_type(one.name): one for one in _types(given, "")}


def _types(given: Any, group: str) -> Iterator[OfferedType]:
    if isinstance(given, Mapping):
        for name, value in given.items():
            if isinstance(value, Mapping) and not group:
                yield from _types(value, str(name))
            elif isinstance(value, str):
                yield OfferedType(str(name), value, group)
            else:
                yield _known(value, group, str(name))
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
        for value in given:
            yield OfferedType(value, "", group) if isinstance(value, str) else _known(value, group, None)
    else:
        raise ArgumentError(f"event_types: {brief(given)} is no mapping of types to descriptions, and no list of types")


def _known(value: Any, group: str, name: str | None) -> OfferedType:
    """Return the type that an object describes, itself or by its `declaration`; `name` is its key in a mapping."""
    told = getattr(value, "declaration", value)
    found = name or getattr(told, "name", None) or getattr(told, "type", None)
    description = getattr(told, "description", 0)
    if not isinstance(found, str) or not isinstance(description, str | None):
        raise ArgumentError(f"event_types: {brief(value)} does not describe an event type; give text, or name and text")
    return OfferedType(found, description or "", group or getattr(told, "group", None) or "")
