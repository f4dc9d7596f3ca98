"""The types of events that a tenant has had, or all have, each with an example and its shape.

It is what was seen: the newest events, and what statistics count. A catalogue of declared types can stand in its place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from outbox import statistics
from outbox.control.filters import Filters
from outbox.control.history import list_attempts
from outbox.ids import EventId
from outbox.subscriptions.checks import EVERY_TENANT

__all__ = ["LOOKED", "SeenType", "TypeExample", "example_of_type", "seen_types", "shape_of"]

LOOKED = 10_000
"""How many of the newest events, of all tenants, are looked at."""
_MOST_TYPES = 500
_OVER = "30d"
_MOST_PARSED = 262_144  # characters of a payload
_MOST_PLACES = 500
_LONGEST_PLACE = 300  # characters: each place names those that it is in, so that long names would add up to megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenType:
    """A type, how many deliveries of it succeeded in 30 days, and when there last was something of it."""

    type: str
    delivered: int
    last_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeExample:
    """The newest event of a type that could be found. `shape` has the kind of value at each place of its payload."""

    event_id: EventId
    recorded_at: datetime
    payload: str
    shape: tuple[tuple[str, str], ...]


_NEWEST = text("""
select type, max(recorded_at) as last_at
from (select tenant, type, recorded_at from outbox.events order by seq desc limit :looked) newest
where cast(:tenant as text) is null or tenant = :tenant group by type limit :most
""")


def seen_types(connection: Connection, tenant: str | None) -> list[SeenType]:
    """Return the types that a tenant has had lately, by name, 500 at most; those of all where it is None.

    So it never exceeds a page. Names are whatever was recorded, and this is a sample of them: of those most sent in 30
    days and those of the newest events, the first 500. Who has more declares them.
    """
    whose = EVERY_TENANT if tenant is None else tenant
    counted = {one.type: one for one in statistics.rank(connection, whose, "type", over=_OVER, limit=_MOST_TYPES)}
    newest = {
        row.type: row.last_at
        for row in connection.execute(_NEWEST, {"tenant": tenant, "looked": LOOKED, "most": _MOST_TYPES})
    }
    names = sorted({name for name in counted if name is not None} | newest.keys())[:_MOST_TYPES]
    return [_seen(name, counted.get(name), newest.get(name)) for name in names]


def _seen(name: str, counted: statistics.Statistics | None, recorded_at: datetime | None) -> SeenType:
    times = [recorded_at, *((counted.last_delivered_at, counted.last_failed_at) if counted else ())]
    last = max((time for time in times if time is not None), default=None)
    return SeenType(type=name, delivered=counted.delivered if counted else 0, last_at=last)


_EXAMPLE = text("""
select id, recorded_at, payload from outbox.events
where seq = (select seq from (select seq, tenant, type from outbox.events order by seq desc limit :looked) newest
             where (cast(:tenant as text) is null or tenant = :tenant) and type = :type order by seq desc limit 1)
""")
_EVENT = text("""
select id, recorded_at, payload from outbox.events
where id = :id and (cast(:tenant as text) is null or tenant = :tenant)""")


def example_of_type(connection: Connection, tenant: str | None, type_: str) -> TypeExample | None:
    """Return the newest event of a type: among the newest of all, or else of those that were sent."""
    given = {"tenant": tenant, "type": type_, "looked": LOOKED}
    row = connection.execute(_EXAMPLE, given).one_or_none()
    if row is None:
        sent = list_attempts(connection, tenant, Filters(type=type_, limit=1)).items
        known = sent[0].event_id if sent else None
        row = connection.execute(_EVENT, {"id": known, "tenant": tenant}).one_or_none() if known else None
    if row is None:
        return None
    return TypeExample(
        event_id=EventId.of(row.id), recorded_at=row.recorded_at, payload=row.payload, shape=shape_of(row.payload)
    )


def shape_of(payload: str) -> tuple[tuple[str, str], ...]:
    """Return each place of a JSON text and what is there, in order: ("customer.name", "text"), ("items[]", "object").

    The kinds are text, number, true or false, null, object and list; of a list, its first item stands for all. What is
    too large or too deep to be read has no shape; of very many places the first 500 are told, and none that takes more
    than 300 characters to name.
    """
    if len(payload) > _MOST_PARSED:
        return ()
    try:
        places: list[tuple[str, str]] = []
        _add_places(json.loads(payload), "", places)
    except (ValueError, RecursionError):
        return ()
    return tuple(places[:_MOST_PLACES])


_KINDS = ((bool, "true or false"), (str, "text"), (int | float, "number"), (dict, "object"), (list, "list"))


def _add_places(value: Any, place: str, places: list[tuple[str, str]]) -> None:
    if len(places) > _MOST_PLACES or len(place) > _LONGEST_PLACE:
        return
    if place:
        places.append((place, next((name for kind, name in _KINDS if isinstance(value, kind)), "null")))
    if isinstance(value, dict):
        for name, inner in value.items():
            _add_places(inner, f"{place}.{name}" if place else name, places)
    elif isinstance(value, list) and value:
        _add_places(value[0], f"{place}[]", places)
