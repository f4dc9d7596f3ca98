"""How an application asks: its session or connection, whose rows it means, and its filters, each checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TypedDict
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from outbox._connection import require_connection
from outbox._text import brief
from outbox.errors import ArgumentError
from outbox.ids import DeliveryId, Id
from outbox.recording.bind import WRITE, events_table
from outbox.recording.targets import session_of
from outbox.subscriptions.checks import EveryTenant, check_whose

__all__ = [
    "AttemptsWhere",
    "DeliveriesWhere",
    "EventsWhere",
    "Tenant",
    "Where",
    "connection_of",
    "deliveries_of",
    "listed",
    "whose",
]

Tenant = str | EveryTenant


class EventsWhere(TypedDict, total=False):
    """Filters of events. since, until: an aware datetime, or a timedelta before now. type: exact, or `order.*`.

    text: looked for as it is written, in the first 64 KiB of the payload. limit: rows of a page, 1 to 10000, 50.
    """

    since: datetime | timedelta | None
    until: datetime | timedelta | None
    type: str | None
    key: str | None
    text: str | None
    limit: int


class Where(TypedDict, total=False):
    """Filters of dead letters and deliveries; subscription and event are ids."""

    since: datetime | timedelta | None
    until: datetime | timedelta | None
    type: str | None
    key: str | None
    subscription: str | UUID | None
    limit: int


class DeliveriesWhere(Where, total=False):
    """The same, and text: looked for in payload and error, of attempts in the response too."""

    event: str | UUID | None
    text: str | None


class AttemptsWhere(DeliveriesWhere, total=False):
    """The same, and outcome (one word, or `failed` for all but delivered) and status (503, or "5xx")."""

    outcome: str | None
    status: int | str | None


def connection_of(target: Session | Connection, *, to_write: bool = False) -> Connection:
    """Return the connection that carries the caller's transaction. Raises ArgumentError for what has none."""
    given = require_connection(target, to_write=to_write)
    if isinstance(given, Connection):
        found = given
    else:
        session = session_of(given)
        assert session is not None
        found = session.connection(bind_arguments={"clause": WRITE if to_write else select(events_table)})
    if found.dialect.driver == "psycopg2":
        _tell_psycopg2_of_ids()
    return found


@cache
def _tell_psycopg2_of_ids() -> None:
    """Let psycopg2 write an id as a uuid: by itself it would take the text that people see."""
    extensions = sys.modules["psycopg2.extensions"]
    for kind in Id.__subclasses__():
        extensions.register_adapter(kind, lambda value: extensions.AsIs(f"'{UUID(int=value.int)}'::uuid"))


def whose(tenant: Tenant) -> str | None:
    """Return the tenant who asks, None for EVERY_TENANT. Raises SubscriptionError for what is neither."""
    return check_whose(tenant)


def deliveries_of(ids: str | UUID | Sequence[str | UUID], field: str) -> list[DeliveryId]:
    """Return ids of deliveries, of which one may stand alone, as a list. Raises as `listed` and `Id.of` do."""
    return [DeliveryId.of(one, field) for one in listed(ids, field)]


def listed(ids: str | UUID | Sequence[str | UUID], field: str) -> list[str | UUID]:
    """Return ids, of which one may stand alone, as a list. Raises ArgumentError for what is neither."""
    if isinstance(ids, str | UUID):
        return [ids]
    if not isinstance(ids, list | tuple) or not ids:
        raise ArgumentError(f"{field}: must be an id or a list of ids, not {brief(ids)}")
    return [*ids]
