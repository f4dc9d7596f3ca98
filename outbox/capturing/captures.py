"""`capture()`: check what an application asks to capture, and begin to listen."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import Enum as PythonEnum
from typing import Any, TypeAlias

from sqlalchemy import Enum
from sqlalchemy import inspect as inspect_class
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import InspectionAttr, Mapper

from outbox._text import MAX_TENANT_BYTES, brief, complaint
from outbox.capturing import listeners
from outbox.capturing.change import Change
from outbox.capturing.registry import BULK, Bulk, Capture, keep
from outbox.capturing.shape import columns_of
from outbox.errors import CaptureError, RecordError
from outbox.recording.arguments import checked_type

__all__ = ["capture"]

_Named: TypeAlias = str | InspectionAttr
_Chosen: TypeAlias = InspectionAttr | Callable[[Change], Any]


def capture(
    model: type,
    /,
    *,
    created: str | None = None,
    updated: str | None = None,
    deleted: str | None = None,
    became: Mapping[Any, Mapping[Any, str]] | None = None,
    columns: Iterable[_Named] | None = None,
    data: Callable[[Change], object] | None = None,
    key: _Chosen | None = None,
    tenant: str | _Chosen = "",
    priority: int | Callable[[Change], int] = 0,
    each_flush: bool = False,
    bulk: Bulk = "refuse",
) -> Capture:
    """Record events of what sessions do to the rows of a mapped class, in the same transaction; subclasses too.

    Just before COMMIT each row that the transaction changed gives one event, or one for each that fits: a row that was
    made is `created` with its final values; one that was made and deleted, or changed and changed back, gives none.

    Args:
        model: the mapped class.
        created: the event's type, e.g. `lead.scraped`; None for no such event. The same of `updated` and `deleted`.
        became: types by attribute and value, `{"status": {"qualified": "lead.qualified"}}`: the value is this one now
            and was another before, or the row is new.
        columns: the attributes that count: a change of others is none, and they are not in the data. None: all columns.
        data: makes the event's data of a `Change`. None: the row's values by attribute name.
        key: an attribute, or a function of a `Change`; None: the primary key as text, several parts with commas.
        tenant: a text, an attribute, or a function of a `Change`.
        priority: 0 to 3, or a function of a `Change`.
        each_flush: record at each flush what it did, instead of once a transaction.
        bulk: what becomes of statements that change many rows past the unit of work, such as `update(Lead)`: `refuse`
            them, `cover` them at the cost of reading the rows, or `ignore` what they do. A statement may say so itself:
            `execution_options(outbox_capture="cover")`.

    Raises:
        CaptureError: an argument is wrong; the message names it.
    """
    mapper = _mapper_of(model)
    every = columns_of(mapper)
    made = Capture(
        model=model,
        mapper=mapper,
        created=_type("created", created),
        updated=_type("updated", updated),
        deleted=_type("deleted", deleted),
        became=_became(every, became or {}),
        columns=None if columns is None else tuple(_attribute("columns", every, one) for one in columns),
        data=_function("data", data),
        key=None if key is None else _chosen("key", every, key),
        tenant=_tenant(every, tenant),
        priority=_priority(priority),
        each_flush=each_flush,
        bulk=bulk,
        needed=frozenset(_needed(every, columns, became or {}, key, tenant)),
    )
    _check(made)
    listeners.start()
    keep(made, listeners.stop)
    return made


def _check(made: Capture) -> None:
    if not (made.created or made.updated or made.deleted or made.became):
        raise CaptureError(
            "capture: nothing would be recorded; give created=, updated=, deleted= or became= the type of an event"
        )
    if made.bulk not in BULK:
        raise CaptureError(f"bulk: must be refuse, cover or ignore, not {brief(made.bulk)}")
    if type(made.each_flush) is not bool:
        raise CaptureError(f"each_flush: must be True or False, not {brief(made.each_flush)}")


def _mapper_of(model: object) -> Mapper[Any]:
    try:
        found = inspect_class(model)
    except NoInspectionAvailable:
        found = None
    if not isinstance(found, Mapper):
        raise CaptureError(f"model: {getattr(model, '__name__', brief(model))} is not a class that SQLAlchemy maps")
    return found


def _type(argument: str, value: object) -> str | None:
    if value is None:
        return None
    try:
        return checked_type(value, argument)
    except RecordError as error:
        raise CaptureError(str(error)) from None


def _attribute(argument: str, every: Mapping[str, Any], named: object) -> str:
    """Return the name of an attribute that is a column. An attribute of the class says it as well as its name."""
    name = getattr(named, "key", named)
    if not isinstance(name, str) or name not in every:
        raise CaptureError(f"{argument}: {brief(name)} is no column of the class; it has {', '.join(every)}")
    return name


def _became(every: Mapping[str, Any], given: Mapping[Any, Mapping[Any, str]]) -> dict[str, dict[Hashable, str]]:
    if not isinstance(given, Mapping):
        raise CaptureError('became: must be a mapping such as {"status": {"qualified": "lead.qualified"}}')
    found: dict[str, dict[Hashable, str]] = {}
    for named, types in given.items():
        name = _attribute("became", every, named)
        if not isinstance(types, Mapping):
            raise CaptureError(
                f'became.{name}: must be a mapping from values to types, {{"qualified": "lead.qualified"}}'
            )
        found[name] = {}
        for value, type_ in types.items():
            _check_value(f"became.{name}", every[name].type, value)
            if (checked := _type(f"became.{name}", type_)) is not None:
                found[name][value] = checked
    return found


def _check_value(argument: str, kind: Any, value: object) -> None:
    """Refuse a value that the column can never have, which would fail silently."""
    if not isinstance(kind, Enum) or value is None:
        return
    if kind.enum_class is not None:
        if not isinstance(value, kind.enum_class):
            listed = ", ".join(str(one) for one in kind.enum_class)
            raise CaptureError(f"{argument}: {brief(value)} is no {kind.enum_class.__name__}; give one of {listed}")
    elif isinstance(value, PythonEnum) or value not in kind.enums:
        raise CaptureError(f"{argument}: {brief(value)} is none of the column's values: {', '.join(kind.enums)}")


def _function(argument: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise CaptureError(f"{argument}: must be a function of a Change, not {brief(value)}")
    return value


def _chosen(argument: str, every: Mapping[str, Any], value: Any) -> Callable[[Change], Any]:
    """Return the function of a Change that an attribute or a function stands for."""
    if isinstance(value, str) or not (callable(value) or isinstance(value, InspectionAttr)):
        raise CaptureError(f"{argument}: must be an attribute such as Lead.reference, or a function of a Change")
    if not isinstance(value, InspectionAttr):
        return value  # type: ignore[no-any-return] # it was found callable
    name = _attribute(argument, every, value)
    return lambda change: change.row[name]


def _tenant(every: Mapping[str, Any], value: Any) -> str | Callable[[Change], Any]:
    if not isinstance(value, str):
        return _chosen("tenant", every, value)
    if refused := complaint("tenant", value, MAX_TENANT_BYTES) or (
        "tenant: '*' is every tenant" if value == "*" else ""
    ):
        raise CaptureError(refused)
    return value


def _priority(value: Any) -> int | Callable[[Change], Any]:
    if callable(value):
        return value  # type: ignore[no-any-return] # what it returns is checked by record()
    if type(value) is not int or not 0 <= value <= 3:
        raise CaptureError(f"priority: must be 0, 1, 2 or 3, or a function of a Change, not {brief(value)}")
    return value


def _needed(every: Mapping[str, Any], columns: Any, *named: Any) -> Iterable[str]:
    """Yield the attributes that have to be read for this capture, besides the primary key."""
    yield from every if columns is None else (_attribute("columns", every, one) for one in columns)
    for one in named:
        for each in one if isinstance(one, Mapping) else [one]:
            if isinstance(one, Mapping) or isinstance(each, InspectionAttr):
                yield _attribute("became", every, each)
