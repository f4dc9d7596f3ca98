"""Refuse patterns that no event will ever match: where every type is declared, and the catalogue is closed."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from outbox._patterns import covers
from outbox._text import did_you_mean
from outbox.errors import SubscriptionError
from outbox.recording.declared import OF_PROCESS

__all__ = ["require_known_types"]

# Roles that were made by hand, and rights given before there was a catalogue, go on as they were.
_MAY_LOOK = text("""
select coalesce(bool_and(has_table_privilege(to_regclass(name), 'select')), false)
from unnest(array['outbox.event_types', 'outbox.catalogues']) name
""")
_KNOWN = text("""
select type from outbox.event_types
where retired_at is null and (:closed or (select coalesce(bool_and(closed), false) from outbox.catalogues))
""")


def require_known_types(connection: Session | Connection, patterns: Iterable[str]) -> None:
    """Raise SubscriptionError where a catalogue is closed and a pattern matches no type that is declared.

    What is declared is in this process's own catalogue or stored, where this role may look. `*` and types of the relay
    itself are always known.
    """
    may_look = connection.execute(_MAY_LOOK).scalar_one()
    stored = set(connection.execute(_KNOWN, {"closed": OF_PROCESS.closed}).scalars()) if may_look else set()
    if not stored and not OF_PROCESS.closed:
        return
    known = stored.union(OF_PROCESS.names)
    for pattern in patterns:
        if not _matches_any(pattern, known):
            meant = did_you_mean(pattern, known)
            raise SubscriptionError(f"types: {pattern} matches no type of the catalogue, which is closed{meant}")


def _matches_any(pattern: str, known: Collection[str]) -> bool:
    if pattern == "*" or pattern.startswith("relay."):
        return True
    return any(covers(pattern, one) for one in known)
