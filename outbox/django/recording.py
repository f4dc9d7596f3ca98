"""`outbox.django.record()`: record an event in the transaction of one of settings.DATABASES."""

from __future__ import annotations

from typing import Any, Unpack

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.utils.connection import ConnectionDoesNotExist

from outbox._text import brief
from outbox.errors import ArgumentError
from outbox.recording import record as _record
from outbox.recording.event import Event, EventOptions

__all__ = ["LABEL", "django_connection", "record"]

LABEL = "outbox_relay"
"""Our application's label in Django: of its migrations, permissions and admin pages, and for routers."""


def record(
    type: str,  # noqa: A002 - the event's type is called type everywhere
    data: object,
    *,
    using: str | None = None,
    **options: Unpack[EventOptions],
) -> Event:
    """Record an event in the transaction.atomic() that is open, at once, and return it.

    Args:
        type: as for `outbox.record()`, like all that is not said here.
        data: as there, after `order.save()`, so that the database has given the order its id.
        using: the database, a key of settings.DATABASES; default the one to which routers send this application's
            models, else "default".
        options: key, tenant, available_at, idempotency_key, priority, trace, metadata, on_error.

    Raises:
        TransactionError: no atomic() block is open on that database, or it is broken; nothing was written.
        ArgumentError: `using` is no database of the settings.
        RecordError: as `outbox.record()`.
    """
    return _record.record(django_connection(using), type, data, **options)


def django_connection(using: object) -> Any:
    """Return Django's connection to this database; None asks the routers. Raises ArgumentError."""
    if using is None:
        using = router.db_for_write(apps.get_model(LABEL, "Event")) if apps.is_installed("outbox.django") else None
    try:
        return connections[DEFAULT_DB_ALIAS if using is None else using]
    except (ConnectionDoesNotExist, TypeError):
        known = ", ".join(connections)
        raise ArgumentError(f"using: {brief(using)} is no database of settings.DATABASES, which has {known}") from None
