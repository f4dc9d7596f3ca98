"""The stored catalogue, as an application asks: push its own, compare it, read what is there."""

from __future__ import annotations

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from outbox._text import brief
from outbox.catalogue import collection
from outbox.catalogue.collection import Catalogue
from outbox.control import catalogue as operations
from outbox.control.asking import connection_of
from outbox.control.catalogue import CatalogueChange, Declaration
from outbox.control.pages import Page
from outbox.errors import ArgumentError
from outbox.event_types.declared_type import StoredType

__all__ = ["compare", "declaration_of", "push", "stored"]


def push(
    connection: Session | Connection,
    catalogue: Catalogue | None = None,
    *,
    allow_breaking: bool = False,
    prune: bool = False,
) -> CatalogueChange:
    """Store a catalogue, so that dashboard, portal and API show it; return what changed. The caller commits.

    Its types that are not declared any more are retired. Where nothing changed, nothing is written. Asynchronous code
    calls `await session.run_sync(outbox.catalogue.push)`. The role needs what outbox_operator has.

    Args:
        connection: a Session or Connection.
        catalogue: which; default the process's own.
        allow_breaking: store changes that break receivers too, each with a version that was raised.
        prune: remove what is retired.

    Raises:
        CatalogueError: a change breaks receivers, or a type is another catalogue's; nothing was written.
        ArgumentError: an argument is wrong.
    """
    _check_flags(allow_breaking=allow_breaking, prune=prune)
    asked, declared = connection_of(connection, to_write=True), declaration_of(catalogue)
    return operations.push_catalogue(asked, None, declared, allow_breaking=allow_breaking, prune=prune)


def compare(
    connection: Session | Connection, catalogue: Catalogue | None = None, *, prune: bool = False
) -> CatalogueChange:
    """Return what `push()` would change; `breaking` has what breaks receivers. Arguments and errors are those of it."""
    _check_flags(prune=prune)
    return operations.compare_catalogue(connection_of(connection), None, declaration_of(catalogue), prune=prune)


def stored(connection: Session | Connection, *, after: str | None = None, limit: int = 50) -> Page[StoredType]:
    """Return a page of the stored types of every catalogue by name, retired ones too.

    Args:
        connection: a Session or Connection. The role needs what outbox_reader has.
        after: the `next` of the page before; None is the first page.
        limit: how many, 1 to 10000.

    Raises ArgumentError, or FilterError for `after` or `limit`.
    """
    return operations.list_stored(connection_of(connection), None, after=after, limit=limit)


def declaration_of(catalogue: Catalogue | None = None) -> Declaration:
    """Return a catalogue, the process's own by default, as a plain value. Raises ArgumentError where it is none."""
    given = collection.default if catalogue is None else catalogue
    if not isinstance(given, Catalogue):
        raise ArgumentError(f"catalogue: must be an outbox.Catalogue, not {brief(given)}")
    return Declaration(name=given.name, closed=given.closed, types=tuple(one.declaration for one in given))


def _check_flags(**flags: object) -> None:
    for name, value in flags.items():
        if type(value) is not bool:
            raise ArgumentError(f"{name}: must be True or False, not {brief(value)}")
