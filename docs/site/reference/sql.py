"""Tables, views, functions and rights, from the catalogue of a database that was migrated for this."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import psycopg

from docs.site.markdown import code, fence, table
from outbox.subscriptions.fields import FIELDS
from tests.support import databases

SAID: dict[str, Any] = tomllib.loads(Path(__file__).with_name("tables.toml").read_text(encoding="utf-8"))
ROLES = ("outbox_app", "outbox_operator", "outbox_relay", "outbox_reader")
_HEAD = """# SQL

The schema `outbox`, as `relay migrate` makes it. [Tables and views](../tables.md) says which of them are for you, and
what may be written. Times are `timestamptz`; ids are `uuid` in tables, and text (`evt_…`) where people read them. The
partitions of `events`, `attempts` and `idempotency_keys` are not listed: read and write the tables.
"""
_RELATIONS = """
select c.relname, array_agg(a.attname order by a.attnum),
       array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum), array_agg(a.attnotnull order by a.attnum),
       array_agg(coalesce(pg_get_expr(d.adbin, d.adrelid), '') order by a.attnum)
from pg_class c join pg_attribute a on a.attrelid = c.oid
     left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = 'outbox'::regnamespace and c.relkind = any (%s) and not c.relispartition and a.attnum > 0
      and not a.attisdropped
group by c.relname order by c.relname
"""
_RIGHTS = """
with acl as (
    select c.relname, x.grantee, x.privilege_type, '' as attname from pg_class c, aclexplode(c.relacl) x
    where c.relnamespace = 'outbox'::regnamespace
    union all
    select c.relname, x.grantee, x.privilege_type, a.attname
    from pg_class c join pg_attribute a on a.attrelid = c.oid, aclexplode(a.attacl) x
    where c.relnamespace = 'outbox'::regnamespace)
select relname, grantee::regrole::text, lower(privilege_type), array_agg(attname::text order by attname)
from acl where grantee::regrole::text = any (%s) group by 1, 2, 3 order by 1, 2, 3
"""
_FUNCTIONS = """
select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
       array(select r from unnest(%s::text[]) r where has_function_privilege(r, p.oid, 'execute'))
from pg_proc p where p.pronamespace = 'outbox'::regnamespace and p.proname = any (%s) order by p.proname
"""


class UndescribedError(Exception):
    """A table, view, function or column has no sentence in tables.toml, or a sentence has nothing that it is about."""


def sql() -> str:
    """Return the page, from a database that is made for it."""
    with databases.server() as server, databases.database(server) as url:
        databases.migrate(url)
        with psycopg.connect(url) as connection:
            return _page(connection)


def _page(connection: psycopg.Connection) -> str:
    order = list(SAID["tables"])
    tables = connection.execute(_RELATIONS, [["r", "p"]]).fetchall()
    views = connection.execute(_RELATIONS, [["v"]]).fetchall()
    functions = connection.execute(_FUNCTIONS, [list(ROLES), list(SAID["functions"])]).fetchall()
    rights = _rights(connection)
    _compare("tables", {row[0] for row in tables})
    _compare("views", {row[0] for row in views})
    _compare("functions", {row[0] for row in functions})
    return "\n".join(
        [
            _HEAD,
            "## Tables\n",
            *[_table(row, rights) for row in sorted(tables, key=lambda row: order.index(row[0]))],
            "## Views\n",
            *[_view(row) for row in views],
            "## Functions\n\nThose that people and applications call; the others are the relay's own.\n",
            *[_function(row) for row in functions],
        ]
    )


def _rights(connection: psycopg.Connection) -> dict[tuple[str, str], str]:
    """Return what each role may do with each table or view: `select, insert (id, type)`."""
    found: dict[tuple[str, str], list[str]] = {}
    for relation, role, privilege, columns in connection.execute(_RIGHTS, [list(ROLES)]):
        named = [column for column in columns if column]
        whole = len(named) < len(columns)
        found.setdefault((relation, role), []).append(privilege if whole else f"{privilege} ({', '.join(named)})")
    return {key: ", ".join(privileges) for key, privileges in found.items()}


def _table(row: tuple[Any, ...], rights: dict[tuple[str, str], str]) -> str:
    name, columns, kinds, required, defaults = row
    said = _columns_of(name)
    if said:
        _compare(f"columns.{name}", set(columns), set(said))
    head = ("column", "type", "value", "meaning") if said else ("column", "type", "value")
    rows = [
        (code(column), kind, _needed(needed, default), said.get(column, ""))[: len(head)]
        for column, kind, needed, default in zip(columns, kinds, required, defaults, strict=True)
    ]
    granted = [(code(role), rights[name, role]) for role in ROLES if (name, role) in rights]
    return "\n".join(
        [
            f"### outbox.{name}\n",
            SAID["tables"][name] + "\n",
            table(head, rows),
            table(("role", "may"), granted) if granted else "No group role may do anything with it.\n",
        ]
    )


def _columns_of(name: str) -> dict[str, str]:
    """Return the sentences of a table's columns; those of a subscription's fields are where the fields are declared."""
    said: dict[str, str] = SAID["columns"].get(name, {})
    if name != "subscriptions":
        return said
    stored = {field.name: field.meaning for field in FIELDS if field.name not in _SECRET_FIELDS}
    return {**stored, **said}


_SECRET_FIELDS = ("headers", "authentication", "tls", "format_secret")  # in outbox.secrets


def _needed(needed: bool, default: str) -> str:  # noqa: FBT001 - a cell of the catalogue
    if default:
        return f"default {code(default)}" if len(default) < 60 else "made from others"
    return "required" if needed else "may be null"


def _view(row: tuple[Any, ...]) -> str:
    name, columns, kinds, _, _ = row
    listed = [(code(column), kind) for column, kind in zip(columns, kinds, strict=True)]
    return f"### outbox.{name}\n\n{SAID['views'][name]}\n\n{table(('column', 'type'), listed)}"


def _function(row: tuple[Any, ...]) -> str:
    name, arguments, result, roles = row
    called = f"outbox.{name}({arguments}) returns {result}"
    who = ", ".join(map(code, roles)) or "the owner of the schema only"
    return f"### outbox.{name}()\n\n{SAID['functions'][name]}\n\n{fence(called, 'sql')}\nFor: {who}.\n"


def _compare(kind: str, there: set[str], said: set[str] | None = None) -> None:
    said = set(SAID[kind]) if said is None else said
    if there != said:
        raise UndescribedError(
            f"tables.toml, [{kind}]: without a sentence: {', '.join(sorted(there - said)) or 'none'};"
            f" not in the schema: {', '.join(sorted(said - there)) or 'none'}"
        )
