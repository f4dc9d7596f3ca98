"""The captures that there are, and who listens to a class or a table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, NamedTuple

from sqlalchemy import FromClause
from sqlalchemy.orm import Mapper

from outbox.capturing.change import Change
from outbox.capturing.shape import Shape, shape_of

__all__ = [
    "BULK",
    "Bulk",
    "Capture",
    "Watch",
    "captured_tables",
    "captures_of_table",
    "has_captures",
    "keep",
    "watch_of",
]

Bulk = Literal["refuse", "cover", "ignore"]
BULK = ("refuse", "cover", "ignore")


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """What `capture()` made; `remove()` ends it. The other fields are what was asked for."""

    model: type
    mapper: Mapper[Any]
    created: str | None
    updated: str | None
    deleted: str | None
    became: Mapping[str, Mapping[Hashable, str]]
    columns: tuple[str, ...] | None
    data: Callable[[Change], object] | None
    key: Callable[[Change], Any] | None
    tenant: str | Callable[[Change], Any]
    priority: int | Callable[[Change], Any]
    each_flush: bool
    bulk: Bulk
    needed: frozenset[str]

    def remove(self) -> None:
        """End it at once: what open transactions have flushed is not recorded either. A second call does nothing."""
        _registry.change(lambda captures: tuple(one for one in captures if one is not self))
        if not _registry.captures:
            _registry.stop()

    def __repr__(self) -> str:
        types = [self.created, self.updated, self.deleted, *(t for to in self.became.values() for t in to.values())]
        return f"capture({self.model.__name__}: {', '.join(name for name in types if name)})"


class Watch(NamedTuple):
    """Who listens to the rows of one class, and what has to be read for them. `of_changes`: not only of new rows.

    Nobody listens to a class that only has its table in common with one that is captured.
    """

    shape: Shape
    captures: tuple[Capture, ...]
    each_flush: bool
    of_changes: bool


class _Known:
    """What was made of the captures for each class and table. Others take its place when the captures change."""

    def __init__(self) -> None:
        self.watches: dict[Mapper[Any], Watch | None] = {}
        self.tables: dict[FromClause, tuple[Capture, ...]] | None = None


class _Registry:
    """The captures, and what is known of them.

    Other threads read while one changes them. So whoever computes an answer takes `known` before `captures`, and keeps
    the answer there: what was computed of captures that have changed since goes with the `known` that it is kept in.
    """

    def __init__(self) -> None:
        self.captures: tuple[Capture, ...] = ()
        self.known = _Known()
        self.stop: Callable[[], None] = lambda: None
        self._changing = Lock()

    def change(self, change: Callable[[tuple[Capture, ...]], tuple[Capture, ...]]) -> None:
        """Change the captures, and forget what was made of them."""
        with self._changing:
            self.captures = change(self.captures)
            self.known = _Known()


_registry = _Registry()


def keep(made: Capture, stop: Callable[[], None]) -> None:
    """Keep a capture; `stop` is called when the last of them is removed."""
    _registry.stop = stop
    _registry.change(lambda captures: (*captures, made))


def has_captures() -> bool:
    """Tell whether anything is captured."""
    return bool(_registry.captures)


def watch_of(mapper: Mapper[Any]) -> Watch | None:
    """Return who listens to a class; None: nobody."""
    known = _registry.known
    try:
        return known.watches[mapper]
    except KeyError:
        made = known.watches[mapper] = _watch(mapper)
        return made


def _watch(mapper: Mapper[Any]) -> Watch | None:
    captures = [one for one in _registry.captures if mapper.isa(one.mapper)]
    if not captures and not any(captures_of_table(table) for table in mapper.tables):
        return None
    whole = any(one.columns is None for one in captures)
    wanted = None if whole else {name for one in captures for name in one.needed}
    return Watch(
        shape_of(mapper, wanted),
        tuple(captures),
        any(one.each_flush for one in captures),
        any(one.updated or one.deleted or one.became for one in captures),
    )


def captures_of_table(table: FromClause) -> tuple[Capture, ...]:
    """Return the captures of classes that have rows in a table."""
    return captured_tables().get(table, ())


def captured_tables() -> Mapping[FromClause, tuple[Capture, ...]]:
    """Return the tables that have rows of captured classes, each with the captures of those."""
    known = _registry.known
    tables = known.tables
    if tables is None:
        tables = {}
        for one in _registry.captures:
            for each in {t for mapper in one.mapper.self_and_descendants for t in mapper.tables}:
                tables[each] = (*tables.get(each, ()), one)
        known.tables = tables
    return tables
