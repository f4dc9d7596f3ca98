"""Subscriptions that nothing is sent to at present: disabled, or held back by their receivers' Retry-After.

What is paused is so because a person wants it: it is counted with them, and not named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.ids import text_id
from relay.operations.status.stuck import subscription_health
from relay.operations.wording import utc
from relay.store.statements import OPEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

__all__ = ["closed_lines", "disabled_subscriptions", "due_of_closed", "held_subscriptions"]

_NAMED = 5
_COUNTED = 100

_DISABLED = """
select id, url, tenant, disabled_at, disabled_reason as reason, count(*) over () as number
from outbox.subscriptions where disabled_at is not null and removed_at is null
order by disabled_at desc limit :named
"""

_HELD = """
select id, url, tenant, held_until, count(*) over () as number
from outbox.subscriptions
where held_until > clock_timestamp() and paused_at is null and disabled_at is null and removed_at is null
order by held_until desc limit :named
"""

_DUE = f"""
select coalesce(sum(due), 0) as due, count(*) as subscriptions from (
    select (select count(*) from (select 1 from outbox.deliveries d
                                  where d.subscription_id = s.id and d.due_at <= clock_timestamp()
                                  limit :bound) bounded) as due
    from outbox.subscriptions s where removed_at is null and not ({OPEN}) limit :counted) closed
"""  # noqa: S608 - the parts are constants


def disabled_subscriptions(connection: Connection) -> dict[str, Any]:
    """Return how many are disabled, and the five newest of them with what waits for them."""
    return _newest(connection, _DISABLED)


def held_subscriptions(connection: Connection) -> dict[str, Any]:
    """Return how many are held back, and the five that are longest, with what waits for them."""
    return _newest(connection, _HELD)


def _newest(connection: Connection, statement: str) -> dict[str, Any]:
    rows = connection.execute(text(statement), {"named": _NAMED}).all()
    named = []
    for row in rows:
        fields = {name: value for name, value in row._mapping.items() if name not in ("id", "number")}  # noqa: SLF001
        health = subscription_health(connection, row.id)
        named.append({"subscription_id": text_id("sub", row.id), **fields, **health})
    return {"count": rows[0].number if rows else 0, "named": named}


def due_of_closed(connection: Connection, bound: int) -> tuple[int, bool]:
    """Return how many deliveries are due to subscriptions that nothing is sent to, and whether that is all of them.

    Up to `bound` are counted of each, and a hundred subscriptions.
    """
    row = connection.execute(text(_DUE), {"bound": bound, "counted": _COUNTED}).one()
    return int(row.due), row.due < bound and row.subscriptions < _COUNTED


def closed_lines(disabled: Mapping[str, Any], held: Mapping[str, Any]) -> list[str]:
    """Return in words who is disabled or held back, why, what waits, and what ends it."""
    lines = [
        f"{item['subscription_id']} is disabled since {utc(item['disabled_at'])}: {item['reason']};"
        f" {_waiting(item)}: relay subscriptions resume {item['subscription_id']}"
        for item in disabled["named"]
    ]
    if disabled["count"] > len(disabled["named"]):
        lines.append(f"{disabled['count']:,} subscriptions are disabled: relay subscriptions list --state disabled")
    return lines + [
        f"{item['subscription_id']} is held until {utc(item['held_until'])} by the receiver's Retry-After;"
        f" {_waiting(item)}"
        for item in held["named"]
        if item["outstanding"]
    ]


def _waiting(item: Mapping[str, Any]) -> str:
    outstanding = item["outstanding"]
    return f"{outstanding:,} deliveries wait" if outstanding <= 1000 else "more than 1,000 deliveries wait"
