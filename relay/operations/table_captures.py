"""Tables whose rows are captured in SQL, by a trigger on each: for what is written by others than the application.

The trigger calls outbox.capture_row(), which has all that it needs in its argument; so a dump holds it, and no code is
made for a table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from outbox._text import brief, complaint
from outbox.control.filters import Filters
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import operator_only
from outbox.errors import CaptureError, RecordError
from outbox.recording.arguments import checked_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

__all__ = ["TableCapture", "capture_sql", "install_capture", "list_captures", "remove_capture"]

_NAME = "outbox_capture"
_MAX_NAME_BYTES = 63  # PostgreSQL cuts off what is longer
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCapture:
    """What is captured of a table, and the name of its trigger.

    `table` is a name as SQL has it, with its schema where that is not in the search path; in a list it has its schema.
    `became` has types by column and value, as PostgreSQL writes it as text. An empty `key` is the primary key.
    `tenant_column` is one that is declared NOT NULL.
    """

    table: str
    created: str | None = None
    updated: str | None = None
    deleted: str | None = None
    became: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    tenant_column: str | None = None
    columns: tuple[str, ...] = ()
    name: str = _NAME
    enabled: bool = True


_FIND = text("""
select c.relkind, n.nspname, c.relname,
       array(select a.attname from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0
             and not a.attisdropped order by a.attnum) as columns,
       array(select a.attname from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0
             and a.attgenerated = 'v') as virtual,
       array(select a.attname from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnotnull) as not_null,
       array(select a.attname from pg_catalog.pg_index i
             cross join unnest(i.indkey::smallint[]) with ordinality k(attnum, place)
             join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
             where i.indrelid = c.oid and i.indisprimary order by k.place) as primary_key
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = pg_catalog.to_regclass(:table)
""")
_CREATE = text("""
select pg_catalog.format('create or replace trigger %I after %s on %I.%I for each row'
                         ' execute function outbox.capture_row(%L)',
                         cast(:name as text), cast(:events as text), cast(:schema as text), cast(:table as text),
                         cast(:asked as text))
""")
_LISTING = Listing(
    name="captures",
    columns={},
    own="cast(:asking as text) is null",
    keys=(
        Key('cast(n.nspname as text) collate "C"', "schema", "text"),
        Key('cast(c.relname as text) collate "C"', "relation", "text"),
        Key('cast(t.tgname as text) collate "C"', "name", "text"),
    ),
)
_LIST = f"""
select pg_catalog.format('%I.%I', n.nspname, c.relname) as "table", n.nspname as schema, c.relname as relation,
       t.tgname as name, t.tgenabled <> 'D' as enabled,
       pg_catalog.convert_from(
           pg_catalog.substring(t.tgargs, 1, pg_catalog.octet_length(t.tgargs) - 1), 'UTF8') as asked
from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where t.tgfoid = pg_catalog.to_regprocedure('outbox.capture_row()') and t.tgparentid = 0 and {{where}}
{_LISTING.order_by} limit :limit
"""  # noqa: S608 - constants
_DROP = text("""
select pg_catalog.format('drop trigger %I on %I.%I', t.tgname, n.nspname, c.relname)
from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where t.tgfoid = pg_catalog.to_regprocedure('outbox.capture_row()') and t.tgparentid = 0
      and t.tgrelid = pg_catalog.to_regclass(:table) and t.tgname = :name
""")


def capture_sql(connection: Connection, tenant: str | None, wanted: TableCapture) -> str:
    """Return the statement that captures a table. For the operator only; nothing is changed.

    Raises:
        CaptureError: the table or a column is not there, or an argument is wrong; the message names it.
    """
    operator_only(tenant, "capture of tables")
    _check(wanted)
    found = _find(connection, wanted.table)
    key = wanted.key or tuple(found.primary_key)
    if not key:
        raise CaptureError(f"key: {wanted.table} has no primary key; name the columns that tell its rows apart")
    _check_columns(wanted, key, found)
    values = {
        "name": wanted.name, "events": _events(wanted), "schema": found.nspname, "table": found.relname,
        "asked": json.dumps(_asked(wanted, key), ensure_ascii=False),
    }  # fmt: skip
    return str(connection.execute(_CREATE, values).scalar_one())


def install_capture(connection: Connection, tenant: str | None, wanted: TableCapture) -> str:
    """Capture a table from now on; return the statement. A capture of this name on the table is replaced.

    Whoever does it owns the table and may record; whoever writes to the table may record too. For the operator only.

    Raises:
        CaptureError: as `capture_sql` does.
    """
    statement = capture_sql(connection, tenant, wanted)
    _run(connection, statement)
    return statement


def list_captures(
    connection: Connection, tenant: str | None, *, after: str | None = None, limit: int = 50
) -> Page[TableCapture]:
    """Return the captures of all tables by schema, table and name, `limit` a page. For the operator only.

    Raises FilterError where `after` is no cursor of this list.
    """
    operator_only(tenant, "capture of tables")
    where, parameters = _LISTING.where(tenant, Filters(limit=limit), after)
    rows = connection.execute(text(_LIST.format(where=where)), parameters).all()
    return _LISTING.page(rows, limit, _read)


def remove_capture(connection: Connection, tenant: str | None, table: str, name: str = _NAME) -> bool:
    """End a capture; return whether there was one. For the operator only."""
    operator_only(tenant, "capture of tables")
    statement = connection.execute(_DROP, {"table": _checked_table(table), "name": name}).scalar()
    if statement is not None:
        _run(connection, statement)
    return statement is not None


def _run(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _check(wanted: TableCapture) -> None:
    types = {"created": wanted.created, "updated": wanted.updated, "deleted": wanted.deleted}
    for column, values in wanted.became.items():
        types |= {f"became: {column}={value}": type_ for value, type_ in values.items()}
    given = {argument: type_ for argument, type_ in types.items() if type_ is not None}
    if not given:
        raise CaptureError("nothing would be recorded; give created, updated, deleted or became the type of an event")
    for argument, type_ in given.items():
        try:
            checked_type(type_, argument)
        except RecordError as error:
            raise CaptureError(str(error)) from None
    if refused := complaint("name", wanted.name, _MAX_NAME_BYTES):
        raise CaptureError(refused)
    if not wanted.name:
        raise CaptureError("name: is empty")


def _checked_table(table: str) -> str:
    if refused := complaint("table", table, 1024):
        raise CaptureError(refused)
    return table


def _find(connection: Connection, table: str) -> Any:
    """Return what the catalog has of a table that can be captured."""
    try:
        with connection.begin_nested():
            found = connection.execute(_FIND, {"table": _checked_table(table)}).one_or_none()
    except DBAPIError as error:
        raise CaptureError(
            f"table: {brief(table)} is no name of a table; write it as SQL does, e.g. shop.leads"
        ) from error
    if found is None:
        raise CaptureError(f"table: there is no {table}; write its schema too, e.g. shop.leads")
    if found.relkind not in ("r", "p"):
        raise CaptureError(f"table: {table} is {_KINDS.get(found.relkind, 'no table')}; capture the table below it")
    if found.nspname in ("outbox", "pg_catalog", "information_schema"):
        raise CaptureError(f"table: {table} is not the application's")
    return found


def _check_columns(wanted: TableCapture, key: Iterable[str], found: Any) -> None:
    tenant = wanted.tenant_column
    named = [*wanted.became, *key, *wanted.columns, *([tenant] if tenant else [])]
    if unknown := [one for one in named if one not in found.columns]:
        raise CaptureError(f"{wanted.table} has no column {brief(unknown[0])}; it has {', '.join(found.columns)}")
    if virtual := [one for one in named if one in found.virtual]:
        raise CaptureError(
            f"{wanted.table}: column {brief(virtual[0])} is generated and virtual, and triggers do not get its values; "
            "make it STORED, or name the columns that it is made of"
        )
    if tenant and tenant not in found.not_null:
        # A row without a tenant could not be written any more, and whoever writes it is not who installs this.
        raise CaptureError(
            f"tenant_column: {brief(tenant)} of {wanted.table} may be null, and such a row could not be written; "
            "set the column not null"
        )


def _events(wanted: TableCapture) -> str:
    fires = {
        "insert": wanted.created or wanted.became,
        "update": wanted.updated or wanted.became,
        "delete": wanted.deleted,
    }
    return " or ".join(event for event, asked in fires.items() if asked)


def _asked(wanted: TableCapture, key: Iterable[str]) -> dict[str, Any]:
    """Return the trigger's argument, as 0029_capture.sql describes it."""
    asked = {
        "created": wanted.created,
        "updated": wanted.updated,
        "deleted": wanted.deleted,
        "became": {column: dict(values) for column, values in wanted.became.items()},
        "key": list(key),
        "tenant": wanted.tenant_column,
        "columns": list(wanted.columns),
    }
    return {name: value for name, value in asked.items() if value}


def _read(row: Any) -> TableCapture:
    asked = json.loads(row.asked)
    return TableCapture(
        table=row.table,
        created=asked.get("created"),
        updated=asked.get("updated"),
        deleted=asked.get("deleted"),
        became=asked.get("became", {}),
        key=tuple(asked.get("key", ())),
        tenant_column=asked.get("tenant"),
        columns=tuple(asked.get("columns", ())),
        name=row.name,
        enabled=row.enabled,
    )
