"""Read rows from the database: the values that objects do not hold, and whether a row is there.

A key that an application gave need not be the value that the database returns: a UUID as text, a CHAR(n) without its
blanks, an integer as text. So each key is asked for with its number, which comes back with the row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    column,
    func,
    literal,
    select,
)
from sqlalchemy.orm import Mapper
from sqlalchemy.types import NullType, TypeEngine

from outbox.capturing.images import Image
from outbox.capturing.shape import Shape

__all__ = ["Key", "classes_of", "read"]

Key = tuple[Any, ...]
"""A primary key's values."""

_CHUNK_ROWS = 500


def read(connection: Connection, mapper: Mapper[Any], shape: Shape, keys: Sequence[Key]) -> list[Image | None]:
    """Return the row of each key, in the order of the keys; None: there is none. One statement for each 500."""
    found: list[Image | None] = [None] * len(keys)
    statement = select(*(shape.columns[name] for name in shape.names)).select_from(mapper.persist_selectable)
    for place, row in _asked(connection, statement, mapper.primary_key, keys):
        found[place] = dict(zip(shape.names, row, strict=True))
    return found


def classes_of(connection: Connection, mapper: Mapper[Any], keys: Collection[Key]) -> dict[Mapper[Any], list[Key]]:
    """Return which class of a hierarchy each row is of; rows that are not there are left out where that is asked."""
    base = mapper.base_mapper
    if base.polymorphic_on is None:
        return {mapper: list(keys)}
    found: dict[Mapper[Any], list[Key]] = defaultdict(list)
    statement = select(base.polymorphic_on).select_from(base.persist_selectable)
    asked = list(keys)
    for place, (kind,) in _asked(connection, statement, base.primary_key, asked):
        found[base.polymorphic_map.get(kind, base)].append(asked[place])
    return found


def _asked(
    connection: Connection, statement: Select[Any], columns: Sequence[ColumnElement[Any]], keys: Sequence[Key]
) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield the rows that have these primary keys, each with the place of its key."""
    if not all(_fits_array(each.type) for each in columns):
        for place, key in enumerate(keys):
            values = [literal(value, each.type) for each, value in zip(columns, key, strict=True)]
            for found in connection.execute(statement.where(_equal(columns, values))):
                yield place, found
        return
    for places in _chunks(keys):
        for *row, number in connection.execute(_numbered(statement, columns, [keys[place] for place in places])):
            yield places[number - 1], row


def _numbered(statement: Select[Any], columns: Sequence[ColumnElement[Any]], keys: Sequence[Key]) -> Select[Any]:
    """Return the statement for the rows that have one of these keys; its last column is the key's number, from 1."""
    arrays = [
        literal(list(values), ARRAY(each.type, dimensions=1))
        for each, values in zip(columns, zip(*keys, strict=True), strict=True)
    ]
    parts = [column(f"part_{number}", each.type) for number, each in enumerate(columns)]
    asked = func.unnest(*arrays).table_valued(*parts, with_ordinality="number", name="outbox_asked").render_derived()
    named = _equal(columns, [asked.c[part.name] for part in parts])
    return statement.add_columns(asked.c.number).where(named)


def _equal(columns: Sequence[ColumnElement[Any]], values: Sequence[ColumnElement[Any]]) -> ColumnElement[bool]:
    return and_(*(each == value for each, value in zip(columns, values, strict=True)))


def _fits_array(type_: TypeEngine[Any]) -> bool:
    """Tell whether values of this type can be bound as one array; a type that nobody named is the database's guess."""
    return not isinstance(type_, ARRAY | NullType) and type_.bind_expression(bindparam(None)) is None


def _chunks(keys: Sequence[Key]) -> Iterator[list[int]]:
    """Yield places of at most 500 keys whose values have the same types: a driver takes no array of several."""
    alike: dict[tuple[type, ...], list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        alike[tuple(map(type, key))].append(place)
    for places in alike.values():
        rest = iter(places)
        while chunk := list(islice(rest, _CHUNK_ROWS)):
            yield chunk
