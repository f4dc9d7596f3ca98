"""Which columns of a mapped class are captured, and what the database does with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column
from sqlalchemy.orm import Mapper

__all__ = ["Shape", "columns_of", "primary_key_names", "shape_of"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The captured columns of one class, by attribute name.

    `key` are the names of the primary key. The database gives a value to `defaulted` ones where an INSERT has none, and
    to `volatile` ones at each UPDATE: a change of any of `every`, which has the columns that are not captured too.
    """

    names: tuple[str, ...]
    columns: dict[str, Column[Any]]
    key: tuple[str, ...]
    defaulted: frozenset[str]
    volatile: frozenset[str]
    every: frozenset[str]


def columns_of(mapper: Mapper[Any]) -> dict[str, Column[Any]]:
    """Return the columns of a class's tables by attribute name, in order; expressions are left out.

    It does not configure mappers: a class may be captured before those that it refers to exist.
    """
    tables = set(mapper.tables)
    return {
        name: column for name, column in mapper.columns.items() if isinstance(column, Column) and column.table in tables
    }


def primary_key_names(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the attributes of the primary key, in its order."""
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def shape_of(mapper: Mapper[Any], wanted: Iterable[str] | None) -> Shape:
    """Return what to read of a class: these attributes and the primary key, or with None all columns."""
    every, key = columns_of(mapper), primary_key_names(mapper)
    kept = every.keys() if wanted is None else {*wanted, *key}
    columns = {name: column for name, column in every.items() if name in kept}
    return Shape(
        names=tuple(columns),
        columns=columns,
        key=key,
        defaulted=frozenset(name for name, column in columns.items() if column.server_default or column.default),
        volatile=frozenset(name for name, column in columns.items() if column.server_onupdate or column.onupdate),
        every=frozenset(every),
    )
