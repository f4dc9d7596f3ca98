"""The event types that are known: those of the stored catalogue, and with them what was seen of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, text

from outbox._text import MAX_TYPE_BYTES, complaint
from outbox.control.catalogue import stored_types
from outbox.control.event_types import SeenType, TypeExample, example_of_type, seen_types
from outbox.control.pages import Key, Listing, Page
from outbox.errors import NotFoundError
from outbox.event_types.declared_type import StoredType
from outbox.event_types.parts import Part, parts_of

__all__ = ["KnownType", "KnownTypeDetails", "known_types", "show_type", "unsubscribed_types"]

_LISTING = Listing(name="event-types", columns={}, own="", keys=(Key("type", "type", "text"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownType:
    """An event type. What is declared of it: `version` is null where nothing is. What was seen of the tenant's events.

    `deprecated` says what to use in its place; `retired_at` is when it was declared no more. `delivered` counts the
    deliveries that succeeded in 30 days; `last_at` is when there last was something of it.
    """

    type: str
    catalogue: str | None
    version: int | None
    description: str
    deprecated: str | None
    retired_at: datetime | None
    delivered: int
    last_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTypeDetails(KnownType):
    """The same, with its JSON Schema, a declared example as JSON text, the data's parts, and an event as it was."""

    json_schema: Mapping[str, Any] | None
    example: str | None
    parts: tuple[Part, ...]
    seen: TypeExample | None


# What a list shows of each: schemas and examples may be large.
_DECLARED = text("""
select type, catalogue, version, description, deprecated, retired_at from outbox.event_types
where type collate "C" > :last order by type collate "C" limit :limit
""")


def known_types(
    connection: Connection,
    tenant: str | None,
    *,
    after: str | None = None,
    limit: int = 50,
    shown: Callable[[KnownType], bool] | None = None,
) -> Page[KnownType]:
    """Return the types by name, `limit` a page: all that are declared, and what the tenant had lately, of all for None.

    With `shown`, only those for which it returns True. Raises FilterError where `after` is no cursor of this list.
    """
    last = "" if after is None else _LISTING.values_of(after)[0]
    most = limit + 1 if shown is None else None  # which of them are shown is not known to the database
    stored = {row.type: row for row in connection.execute(_DECLARED, {"last": last, "limit": most})}
    seen = {one.type: one for one in seen_types(connection, tenant) if one.type > last}
    known = (_known(name, stored.get(name), seen.get(name)) for name in sorted(stored.keys() | seen.keys()))
    made = list(islice(filter(shown, known), limit + 1)) if shown else list(islice(known, limit + 1))
    return _LISTING.page(made, limit, lambda one: one)


_UNSUBSCRIBED = text("""
select type from unnest(cast(:types as text[])) type
where not exists (select from outbox.subscription_types t
                  where t.pattern = any(outbox.patterns_of(type))
                    and (cast(:asking as text) is null or t.tenant = any(array[cast(:asking as text), '*'])))
""")


def unsubscribed_types(connection: Connection, tenant: str | None, types: Iterable[str]) -> frozenset[str]:
    """Return those of the types that no subscription asks for, of the tenant's and those to every tenant's events."""
    return frozenset(connection.execute(_UNSUBSCRIBED, {"types": list(types), "asking": tenant}).scalars())


def show_type(connection: Connection, tenant: str | None, name: str) -> KnownTypeDetails:
    """Return one type with its schema and examples. Raises NotFoundError where nothing is known of it."""
    if complaint("type", name, MAX_TYPE_BYTES):
        raise _unknown()
    stored = next(iter(stored_types(connection, tenant, name)), None)
    seen = next((one for one in seen_types(connection, tenant) if one.type == name), None)
    if stored is None and seen is None:
        raise _unknown()
    known = _known(name, stored, seen)
    schema = stored.schema if stored else None
    return KnownTypeDetails(
        **{field: getattr(known, field) for field in KnownType.__slots__},
        json_schema=schema,
        example=stored.example if stored else None,
        parts=parts_of(schema),
        seen=example_of_type(connection, tenant, name),
    )


def _unknown() -> NotFoundError:
    return NotFoundError(
        "type: no catalogue declares it, no event of it is among the newest, and nothing of it was sent in 30 days"
    )


def _known(name: str, stored: StoredType | Row[Any] | None, seen: SeenType | None) -> KnownType:
    return KnownType(
        type=name,
        catalogue=stored.catalogue if stored else None,
        version=stored.version if stored else None,
        description=stored.description if stored else "",
        deprecated=stored.deprecated if stored else None,
        retired_at=stored.retired_at if stored else None,
        delivered=seen.delivered if seen else 0,
        last_at=seen.last_at if seen else None,
    )
