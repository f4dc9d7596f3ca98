"""Read rows from the database: the values that objects do not hold, and whether a row is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, tuple_
from sqlalchemy.orm import Mapper

from outbox.capturing.images import Image
from outbox.capturing.shape import Shape

__all__ = ["Key", "classes_of", "is_one_of", "read"]

Key = tuple[Any, ...]
"""A primary key's values."""

_CHUNK_ROWS = 500


def read(connection: Connection, mapper: Mapper[Any], shape: Shape, keys: Collection[Key]) -> dict[Key, Image]:
    """Return the rows of a class that exist, by primary key: one statement for each 500."""
    found: dict[Key, Image] = {}
    columns = [shape.columns[name] for name in shape.names]
    places = [shape.names.index(name) for name in shape.key]
    statement = select(*columns).select_from(mapper.persist_selectable)
    for chunk in _chunks(keys):
        for row in connection.execute(statement.where(is_one_of(mapper.primary_key, chunk))):
            found[tuple(row[place] for place in places)] = dict(zip(shape.names, row, strict=True))
    return found


def classes_of(connection: Connection, mapper: Mapper[Any], keys: Collection[Key]) -> dict[Mapper[Any], list[Key]]:
    """Return which class of a hierarchy each row is of; rows that are not there are left out where that is asked."""
    base = mapper.base_mapper
    if base.polymorphic_on is None:
        return {mapper: list(keys)}
    found: dict[Mapper[Any], list[Key]] = defaultdict(list)
    statement = select(base.polymorphic_on, *base.primary_key).select_from(base.persist_selectable)
    for chunk in _chunks(keys):
        for kind, *key in connection.execute(statement.where(is_one_of(base.primary_key, chunk))):
            found[base.polymorphic_map.get(kind, base)].append(tuple(key))
    return found


def is_one_of(columns: Sequence[ColumnElement[Any]], keys: Collection[Key]) -> ColumnElement[bool]:
    """Return the condition that a row has one of these primary keys."""
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    return tuple_(*columns).in_(list(keys))


def _chunks(keys: Collection[Key]) -> Iterator[list[Key]]:
    rest = iter(keys)
    while chunk := list(islice(rest, _CHUNK_ROWS)):
        yield chunk
