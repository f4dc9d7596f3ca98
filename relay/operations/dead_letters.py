"""Dead letters: what was given up, with the reason and a payload of its own. They leave by replay or purge only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.errors import NotFoundError
from outbox.ids import parse_id, text_id
from relay.operations import audit
from relay.operations.deliveries import attempts_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from relay.operations.filters import Filters

__all__ = ["find", "find_by_id", "list_dead_letters", "purge", "show_dead_letter"]

_COLUMNS = {
    "at": "l.died_at", "type": "l.type", "tenant": "l.tenant", "key": "l.key", "subscription": "l.subscription_id",
}  # fmt: skip

_SELECT = """
select l.delivery_id, l.event_id, l.subscription_id, s.url, l.type, l.tenant, l.key, l.recorded_at, l.attempts,
       l.died_at, l.reason, l.error, l.payload
from outbox.dead_letters l left join outbox.subscriptions s on s.id = l.subscription_id
"""


def list_dead_letters(connection: Connection, filters: Filters) -> list[dict[str, Any]]:
    """Return the newest dead letters that pass the filters; since and until are about when they died."""
    where, parameters = filters.where(_COLUMNS)
    statement = text(f"{_SELECT} where {where} order by l.died_at desc, l.delivery_id limit :limit")
    return [_dead_letter(row) for row in connection.execute(statement, parameters)]


def show_dead_letter(connection: Connection, delivery_id: str) -> dict[str, Any]:
    """Return one dead letter with its payload (JSON text) and attempts. Raises NotFoundError."""
    uuid = parse_id("dlv", delivery_id)
    row = connection.execute(text(f"{_SELECT} where l.delivery_id = :id"), {"id": uuid}).one_or_none()
    if row is None:
        raise _not_found(uuid)
    attempts = attempts_of(connection, delivery_id=uuid)
    return _dead_letter(row) | {"attempts_made": attempts, "payload": row.payload}


def _not_found(uuid: UUID) -> NotFoundError:
    return NotFoundError(f"dead letter: no {text_id('dlv', uuid)}; replayed, purged, or never died")


def find_by_id(connection: Connection, names: Sequence[str]) -> list[UUID]:
    """Return the delivery ids of these dead letters (dlv_…), each once. Raises NotFoundError where one is none."""
    wanted = list(dict.fromkeys(parse_id("dlv", name) for name in names))
    statement = text("select delivery_id from outbox.dead_letters where delivery_id = any(cast(:ids as uuid[]))")
    found = set(connection.execute(statement, {"ids": wanted}).scalars())
    for uuid in wanted:
        if uuid not in found:
            raise _not_found(uuid)
    return wanted


def find(connection: Connection, filters: Filters) -> list[UUID]:
    """Return the delivery ids of the oldest dead letters that pass the filters."""
    where, parameters = filters.where(_COLUMNS)
    statement = text(
        f"select l.delivery_id from outbox.dead_letters l where {where}"  # noqa: S608 - conditions are constants
        " order by l.died_at, l.delivery_id limit :limit"
    )
    return list(connection.execute(statement, parameters).scalars())


def purge(connection: Connection, delivery_ids: Sequence[UUID], filters: Filters | None = None) -> int:
    """Delete these dead letters for good and return how many there were; `filters` found them, for the audit."""
    statement = text(
        "delete from outbox.dead_letters where delivery_id = any(cast(:ids as uuid[])) returning delivery_id, tenant"
    )
    gone = connection.execute(statement, {"ids": list(delivery_ids)}).all()
    audit.note(
        connection, "purged", count=len(gone), ids=(text_id("dlv", row.delivery_id) for row in gone),
        tenants=(row.tenant for row in gone), filters=filters,
    )  # fmt: skip
    return len(gone)


def _dead_letter(row: Any) -> dict[str, Any]:
    return {
        "id": text_id("dlv", row.delivery_id),
        "event_id": text_id("evt", row.event_id),
        "subscription_id": row.subscription_id and text_id("sub", row.subscription_id),
        "url": row.url,
        "type": row.type,
        "tenant": row.tenant,
        "key": row.key,
        "recorded_at": row.recorded_at,
        "died_at": row.died_at,
        "attempts": row.attempts,
        "reason": row.reason,
        "error": row.error,
    }
