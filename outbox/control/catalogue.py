"""The stored catalogue of event types: read it, compare a declared one with it, and push one.

It is nobody's in particular: types belong to the application, whichever tenant their events are of. So every tenant may
read it, and only the operator writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from outbox.control.filters import Filters
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import operator_only
from outbox.errors import CatalogueError
from outbox.event_types.declared_type import DeclaredType, StoredType
from outbox.event_types.differences import Difference, compare_schemas

__all__ = [
    "CatalogueChange",
    "Declaration",
    "TypeChange",
    "compare",
    "compare_catalogue",
    "list_stored",
    "push_catalogue",
    "stored_types",
]

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A catalogue as a plain value: its name, whether it is closed, and its types."""

    name: str
    closed: bool
    types: tuple[DeclaredType, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeChange:
    """What happens to one type. `changed` has the differences; a breaking one breaks whoever reads its events."""

    type: str
    change: Literal["added", "changed", "retired", "restored", "removed"]
    breaking: bool = False
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueChange:
    """What a push changes, by type. `closed`: whether the catalogue is closed afterwards; None where that stays."""

    catalogue: str
    changes: tuple[TypeChange, ...]
    unchanged: int
    closed: bool | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not self.changes and self.closed is None

    @property
    def breaking(self) -> tuple[TypeChange, ...]:
        """The changes that break receivers."""
        return tuple(one for one in self.changes if one.breaking)


_COLUMNS = "type, catalogue, version, description, schema, example, deprecated, added_at, changed_at, retired_at"
_STORED = text(f"""
select {_COLUMNS} from outbox.event_types where cast(:type as text) is null or type = :type order by type
""")  # noqa: S608 - constants
_LISTING = Listing(name="stored-types", columns={}, own="true", keys=(Key("type", "type", "text"),))


def list_stored(
    connection: Connection,
    tenant: str | None,  # the same for each
    *,
    after: str | None = None,
    limit: int = 50,
) -> Page[StoredType]:
    """Return what is stored, by name, `limit` a page, retired types too. The same for every tenant.

    Raises FilterError where `after` is no cursor of this list, or `limit` is not 1 to 10000.
    """
    where, parameters = _LISTING.where(tenant, Filters(limit=limit), after)
    statement = f"select {_COLUMNS} from outbox.event_types where {where} {_LISTING.order_by} limit :limit"  # noqa: S608
    rows = connection.execute(text(statement), parameters).all()
    return _LISTING.page(rows, limit, lambda row: _stored(row._mapping))  # noqa: SLF001 - a public name


def stored_types(connection: Connection, tenant: str | None, type_: str | None = None) -> list[StoredType]:  # noqa: ARG001
    """Return all that is stored, by name, retired types too, or only the type that is named. The same for every tenant.

    There is no page of it: a push compares each type with what is declared, and an export is one document.
    """
    return [_stored(row._mapping) for row in connection.execute(_STORED, {"type": type_})]  # noqa: SLF001 - a public name


def _stored(row: Mapping[Any, Any]) -> StoredType:
    return StoredType(**{**row, "schema": None if row["schema"] is None else json.loads(row["schema"])})


def compare_catalogue(
    connection: Connection, tenant: str | None, declared: Declaration, *, prune: bool = False
) -> CatalogueChange:
    """Return what a push of this catalogue would change; with `prune`, what is retired is removed.

    Raises:
        NotFoundError: a tenant asks.
        CatalogueError: a type is another catalogue's.
    """
    operator_only(tenant, "catalogue")
    known = stored_types(connection, None)
    _refuse_types_of_others(known, declared)
    own = [one for one in known if one.catalogue == declared.name]
    changes = compare(own, declared.types, prune=prune)
    closed = connection.execute(_CLOSED_BEFORE, {"name": declared.name}).scalar_one_or_none()
    return CatalogueChange(
        catalogue=declared.name,
        changes=tuple(changes),
        unchanged=len(declared.types) - sum(one.change in ("added", "changed", "restored") for one in changes),
        closed=None if bool(closed) is declared.closed else declared.closed,
    )


_CLOSED_BEFORE = text("select closed from outbox.catalogues where name = :name")


def _refuse_types_of_others(known: Iterable[StoredType], declared: Declaration) -> None:
    names = {one.type for one in declared.types}
    others = [one for one in known if one.type in names and one.catalogue != declared.name]
    if others:
        named = ", ".join(f"{one.type} (of {one.catalogue})" for one in others[:_SHOWN])
        raise CatalogueError(f"catalogue {declared.name}: others declare {named}; a type has one catalogue")


def compare(stored: Iterable[StoredType], declared: Iterable[DeclaredType], *, prune: bool = False) -> list[TypeChange]:
    """Return what differs between a catalogue as it is stored and as it is declared, by type. Pure."""
    before, after = {one.type: one for one in stored}, {one.type: one for one in declared}
    changes = [_change(before.get(name), after.get(name), prune=prune) for name in sorted(before.keys() | after.keys())]
    return [one for one in changes if one is not None]


def _change(was: StoredType | None, becomes: DeclaredType | None, *, prune: bool) -> TypeChange | None:
    if was is None:
        assert becomes is not None
        return TypeChange(type=becomes.type, change="added")
    if becomes is None:
        if was.retired_at is not None and not prune:
            return None
        return TypeChange(type=was.type, change="removed" if prune else "retired", breaking=was.retired_at is None)
    found = tuple(_differences(was, becomes))
    breaking = any(one.breaking for one in found)
    if was.retired_at is not None:
        return TypeChange(type=was.type, change="restored", breaking=breaking, differences=found)
    return TypeChange(type=was.type, change="changed", breaking=breaking, differences=found) if found else None


def _differences(was: DeclaredType, becomes: DeclaredType) -> list[Difference]:
    """Return what differs: of the schema what receivers notice, else that it was written otherwise."""
    found = compare_schemas(was.schema, becomes.schema)
    if not found and was.schema != becomes.schema:
        found = [Difference("schema", "is written otherwise, for the same data", breaking=False)]
    if was.version != becomes.version:
        went = f"was {was.version}, is {becomes.version}"
        found.append(Difference("version", went, breaking=becomes.version < was.version))
    if was.deprecated != becomes.deprecated:
        said = f"use {becomes.deprecated}" if becomes.deprecated else "is not deprecated any more"
        found.append(Difference("deprecated", said, breaking=False))
    other = [name for name in ("description", "example") if getattr(was, name) != getattr(becomes, name)]
    return [*found, *(Difference(name, "is another one", breaking=False) for name in other)]


def push_catalogue(
    connection: Connection,
    tenant: str | None,
    declared: Declaration,
    *,
    allow_breaking: bool = False,
    prune: bool = False,
) -> CatalogueChange:
    """Store a catalogue in the caller's transaction and return what changed. The audit notes each type.

    Types that are not declared any more are retired, or with `prune` removed. No change writes nothing.

    Raises:
        NotFoundError: a tenant asks.
        CatalogueError: a type is another catalogue's; or a change breaks receivers and is not allowed, or its version
            is not raised.
    """
    operator_only(tenant, "catalogue")
    connection.execute(_LOCK)
    change = compare_catalogue(connection, None, declared, prune=prune)
    _refuse_breaking(connection, change, declared, allowed=allow_breaking)
    if change.is_empty:
        return change
    connection.execute(_PUT_CATALOGUE, {"name": declared.name, "closed": declared.closed})
    by_name = {one.type: one for one in declared.types}
    written = [by_name[one.type] for one in change.changes if one.type in by_name]
    if written:
        connection.execute(_PUT_TYPE, [_columns(declared.name, one) for one in written])
    for statement, kind in ((_RETIRE, "retired"), (_REMOVE, "removed")):
        if names := [one.type for one in change.changes if one.change == kind]:
            connection.execute(statement, {"types": names})
    return change


# One push at a time; whoever reads goes on.
_LOCK = text("lock table outbox.catalogues in share row exclusive mode")
_PUT_CATALOGUE = text("""
insert into outbox.catalogues (name, closed) values (:name, :closed)
on conflict (name) do update set closed = excluded.closed, pushed_at = clock_timestamp()
""")
_PUT_TYPE = text("""
insert into outbox.event_types (type, catalogue, version, description, schema, example, deprecated)
values (:type, :catalogue, :version, :description, :schema, :example, :deprecated)
on conflict (type) do update set version = excluded.version, description = excluded.description,
    schema = excluded.schema, example = excluded.example, deprecated = excluded.deprecated,
    changed_at = clock_timestamp(), retired_at = null
""")
_RETIRE = text("update outbox.event_types set retired_at = clock_timestamp() where type = any(:types)")
_REMOVE = text("delete from outbox.event_types where type = any(:types)")


def _columns(catalogue: str, one: DeclaredType) -> dict[str, Any]:
    schema = None if one.schema is None else json.dumps(one.schema, ensure_ascii=False)
    return {
        "type": one.type, "catalogue": catalogue, "version": one.version, "description": one.description,
        "schema": schema, "example": one.example, "deprecated": one.deprecated,
    }  # fmt: skip


def _refuse_breaking(
    connection: Connection, change: CatalogueChange, declared: Declaration, *, allowed: bool
) -> None:  # fmt: skip
    if not change.breaking:
        return
    if not allowed:
        told = _told(change.breaking)
        raise CatalogueError(f"catalogue {declared.name}: this breaks receivers: {told}; allow it, or change it back")
    before = {one.type: one.version for one in stored_types(connection, None)}
    same = [
        f"{one.type} to {before[one.type] + 1}"
        for one in declared.types
        if one.type in {each.type for each in change.breaking} and one.version <= before[one.type]
    ]
    if same:
        raise CatalogueError(f"version: a change that breaks receivers needs another one; raise {', '.join(same)}")


def _told(changes: Sequence[TypeChange]) -> str:
    lines = [
        line
        for one in changes
        for line in (
            [f"{one.type} {each}" for each in one.differences if each.breaking] or [f"{one.type} is {one.change}"]
        )
    ]
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return ", ".join(lines[:_SHOWN]) + more
