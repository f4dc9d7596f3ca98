"""Pages: a list is read a page at a time, each from where the one before ended, however long it grows.

A cursor holds the sort key of the last row, so what comes in or goes meanwhile moves no row from one page to another.
It is opaque to callers and says nothing that the page did not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from outbox._text import complaint
from outbox.control.filters import FilterError, Filters

__all__ = ["Key", "Listing", "Page"]

T = TypeVar("T")
Made = TypeVar("Made")


def _text(value: object) -> str:
    """Return the value if it is text: a cursor that we made holds nothing else."""
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(text: str) -> int:
    value = int(text)
    if value.bit_length() > 63:
        raise ValueError
    return value


def _moment(text: str) -> datetime | str:
    value = datetime.fromisoformat(text) if text != _INFINITY else text
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError
        return value.astimezone(UTC)  # PostgreSQL knows no zones of sixteen hours and more
    return value


def _storable(text: str) -> str:
    if refused := complaint("after", text, _MAX_KEY_BYTES):
        raise ValueError(refused)
    return text


_MAX_KEY_BYTES = 100_000  # more than any key of a row has
_READ: dict[str, Callable[[str], Any]] = {"bigint": _number, "timestamptz": _moment, "uuid": UUID, "text": _storable}
_INFINITY = "infinity"  # PostgreSQL's last time, for which Python has none; a row has null in its place
_LAST = datetime.max.replace(tzinfo=UTC)


def _written(value: object) -> str:
    """Return a value of a key as text that PostgreSQL reads too, whatever driver passes it on."""
    if value is None or value == _LAST:
        return _INFINITY
    return (
        value.isoformat()
        if isinstance(value, datetime)
        else str(UUID(int=value.int) if isinstance(value, UUID) else value)
    )


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the cursor to the next of them; None where the list ends.

    `searched_until` is None where every row that passes is there. Else the page looked at as many rows as one page may,
    in the list's order as far as this time, and is not full: what comes after may pass too, and `next` goes on there.
    """

    items: tuple[T, ...]
    next: str | None = None
    searched_until: datetime | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Key:
    """One column that a list is sorted by: the expression, its name in the row, its type, its direction."""

    column: str
    name: str
    type: Literal["bigint", "timestamptz", "uuid", "text"]
    descending: bool = False

    @property
    def beyond(self) -> str:
        """The comparison with which the list goes on."""
        return "<" if self.descending else ">"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list: its name, the columns that filters are about, whose its rows are, and the keys it is sorted by.

    The keys together are of one row only. `own` is a condition on `:asking`, the tenant.
    """

    name: str
    columns: Mapping[str, str]
    own: str
    keys: tuple[Key, ...]

    @property
    def order_by(self) -> str:
        """The ORDER BY clause."""
        return "order by " + ", ".join(f"{key.column} desc" if key.descending else key.column for key in self.keys)

    def where(self, tenant: str | None, filters: Filters, after: str | None) -> tuple[str, dict[str, Any]]:
        """Return the conditions and their parameters; `limit` is one row more than the page has.

        Raises:
            FilterError: a filter does not apply here, or the cursor is not of this list.
        """
        conditions, parameters = filters.where(self.columns)
        parameters |= {"asking": tenant, "limit": filters.limit + 1}
        if after is not None:
            conditions += f" and {self.beyond}"
            parameters |= {f"after_{place}": value for place, value in enumerate(self.values_of(after))}
        return f"{conditions} and {self.own}", parameters

    def page(self, rows: Sequence[Any], limit: int, make: Callable[[Any], Made]) -> Page[Made]:
        """Return the rows as a page of what `make` makes of each."""
        shown = rows[:limit]
        last = [getattr(shown[-1], key.name) for key in self.keys] if len(rows) > limit else None
        cursor = None if last is None else self.cursor_of(last)
        return Page(tuple(make(row) for row in shown), cursor)

    @property
    def beyond(self) -> str:
        """The condition that a row comes after the cursor's; the first key alone bounds the scan of an index."""
        condition = ""
        for place, key in reversed(list(enumerate(self.keys))):
            value = f"cast(cast(:after_{place} as text) as {key.type})"
            more = f" or ({key.column} = {value} and {condition})" if condition else ""
            condition = f"({key.column} {key.beyond} {value}{more})"
        first = self.keys[0]
        return f"{first.column} {first.beyond}= cast(cast(:after_0 as text) as {first.type}) and {condition}"

    def cursor_of(self, values: Sequence[object]) -> str:
        """Return the cursor to what comes after the row with these keys."""
        plain = [_written(value) for value in values]
        return base64.urlsafe_b64encode(json.dumps([self.name, *plain]).encode()).decode().rstrip("=")

    def values_of(self, cursor: str) -> list[str]:
        """Return the keys of the row that the page before ended with. Raises FilterError for what is no cursor."""
        try:
            name, *plain = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            values = [_written(_READ[key.type](_text(value))) for key, value in zip(self.keys, plain, strict=True)]
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            name, values = None, []
        if name != self.name:
            raise FilterError("after: is no cursor of this list; give the one that came with the page before")
        return values
