"""A row of an event, and the statements that insert rows: of the plain kind, with extras, and once for each key.

psycopg gets binary parameters (`%b`: 5 µs for a payload of 500 bytes; a text array takes 160 µs). Other drivers get
one JSON document. An array has an item for each row, in the order in which they shall be inserted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from itertools import repeat
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import TextClause, text

__all__ = ["ASYNCPG_ONE", "PLAIN_COLUMNS", "PSYCOPG_ONE", "Kind", "Row", "columns_of", "kind_of"]


class Row(NamedTuple):
    """One event as it is inserted.

    Of available_at and delay at most one is set; the delay counts from the database's now. content: the hash by which a
    row with an idempotency key is compared with another; it is not inserted.
    """

    id: UUID
    type: str
    key: str | None
    tenant: str
    payload: str
    available_at: datetime | None
    delay_microseconds: int | None
    priority: int = 0
    trace: str | None = None
    metadata: str | None = None
    idempotency_key: str | None = None
    content: bytes = b""

    def __repr__(self) -> str:
        return f"Row(id={self.id}, type={self.type!r})"


_TYPES = {
    "id": "uuid",
    "type": "text",
    "key": "text",
    "tenant": "text",
    "payload": "text",
    "available_at": "timestamptz",
    "delay_microseconds": "bigint",
    "priority": "smallint",
    "trace": "text",
    "metadata": "text",  # and cast below: a codec for jsonb on asyncpg's connection would write it twice
    "idempotency_key": "text",
}
PLAIN_COLUMNS = 7
"""How many columns of a row a plain one has."""

_AT = "coalesce({available_at}, clock_timestamp() + {delay} * interval '1 microsecond')"
_AT_OF_ROW = _AT.format(available_at="available_at", delay="delay_microseconds")
_INTO = "insert into outbox.events (id, type, key, tenant, payload, available_at{more}) "
_FROM = "{values} from {given} order by place"
_SELECTED = _INTO + "select id, type, key, tenant, payload, " + _AT_OF_ROW + _FROM
_ONCE = (  # what it is made of are constants
    "select given.idempotency_key, once.same "  # noqa: S608
    "from (select * from {given} order by place) given cross join lateral outbox.record_once("
    "given.type, given.payload, given.key, given.tenant, "
    + _AT.format(available_at="given.available_at", delay="given.delay_microseconds")
    + ", given.priority, given.trace, given.idempotency_key, cast(given.metadata as jsonb)) once"
)
_ONE = (
    _INTO.format(more="")
    + "values ({0}::uuid, {1}::text, {2}::text, {3}::text, {4}::text, "
    + _AT.format(available_at="{5}::timestamptz", delay="{6}::bigint")
    + ")"
)
PSYCOPG_ONE = _ONE.format(*repeat("%b", PLAIN_COLUMNS))
ASYNCPG_ONE = _ONE.format(*(f"${number}" for number in range(1, PLAIN_COLUMNS + 1)))
"""For one plain row."""


class Kind(Enum):
    """What kind of rows a statement inserts, and the statement for each kind of driver.

    The statement of ONCE has an answer: for each row its idempotency key, and false where that was used for other
    content.
    """

    PLAIN = (_SELECTED, PLAIN_COLUMNS, "", "")
    MORE = (_SELECTED, PLAIN_COLUMNS + 3, ", priority, trace, metadata", ", priority, trace, cast(metadata as jsonb)")
    ONCE = (_ONCE, PLAIN_COLUMNS + 4, "", "")

    def __init__(self, statement: str, columns: int, more: str, values: str) -> None:
        names = list(_TYPES)[:columns]
        types = [_TYPES[name] for name in names]
        listed = f"with ordinality as given ({', '.join(names)}, place)"
        recordset = ", ".join(f"{name} {type_}" for name, type_ in zip(names, types, strict=True))

        def with_arrays(marks: Sequence[str]) -> str:
            arrays = ", ".join(f"{mark}::{type_}[]" for mark, type_ in zip(marks, types, strict=True))
            return statement.format(more=more, values=values, given=f"unnest({arrays}) {listed}")

        self.columns = columns
        self.psycopg = with_arrays(["%b"] * columns)
        self.asyncpg = with_arrays([f"${number}" for number in range(1, columns + 1)])
        document = f"rows from (json_to_recordset(cast(:rows as json)) as ({recordset})) {listed}"
        self.json: TextClause = text(statement.format(more=more, values=values, given=document))


def kind_of(row: Row) -> Kind:
    """Return the kind of statement that this row needs: the plainest that will do."""
    if row.idempotency_key is not None:
        return Kind.ONCE
    plain = not row.priority and row.trace is None and row.metadata is None
    return Kind.PLAIN if plain else Kind.MORE


def columns_of(kind: Kind, rows: Sequence[Row]) -> tuple[list[Any], ...]:
    """Return the rows as one list a column."""
    return tuple(map(list, zip(*(row[: kind.columns] for row in rows), strict=True)))
