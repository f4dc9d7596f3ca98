"""Deliveries: one event for one subscription. Outstanding ones, and the record of those that are done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import text

from outbox.errors import NotFoundError
from outbox.ids import parse_id, text_id
from relay.operations.filters import FilterError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from relay.operations.filters import Filters

__all__ = ["STATES", "DeliveryState", "attempts_of", "list_deliveries", "outstanding_of", "show_delivery"]

DeliveryState = Literal["due", "waiting", "leased", "held", "paused", "disabled", "cancelled", "delivered"]
STATES: tuple[DeliveryState, ...] = get_args(DeliveryState)

_STATE = """
case when s.id is null or s.removed_at is not null then 'cancelled'
     when d.lease is not null and d.due_at > clock_timestamp() then 'leased'
     when s.disabled_at is not null then 'disabled'
     when s.paused_at is not null then 'paused'
     when d.due_at > clock_timestamp() then 'waiting'
     when s.held_until > clock_timestamp() then 'held'
     else 'due' end"""

_OUTSTANDING = f"""
select d.id, d.event_seq, e.id as event_id, e.type, e.tenant, e.key, d.subscription_id, s.url, {_STATE} as state,
       d.due_at, d.attempts, d.crashes
from outbox.deliveries d
left join outbox.subscriptions s on s.id = d.subscription_id
left join outbox.events e on e.seq = d.event_seq
"""  # noqa: S608 - the parts are constants

_COLUMNS = {
    "at": "d.due_at", "type": "e.type", "tenant": "e.tenant", "key": "e.key", "subscription": "d.subscription_id",
}  # fmt: skip

_DONE = """
select a.delivery_id as id, a.event_seq, e.id as event_id, e.type, e.tenant, e.key, a.subscription_id, s.url,
       case a.verdict when 'delivered' then 'delivered' when 'test' then 'test' else 'replayed_or_purged' end as state,
       a.at as due_at, a.number as attempts, 0 as crashes
from outbox.attempts a
left join outbox.subscriptions s on s.id = a.subscription_id
left join outbox.events e on e.seq = a.event_seq
where a.verdict in ({verdicts}) and {where} order by a.at desc limit :limit
"""

_ATTEMPTS = """
select delivery_id, event_seq, subscription_id, number, at, verdict, outcome, status, milliseconds, error, url,
       address, headers, excerpt
from outbox.attempts where {where} order by at, number limit 1000
"""


def list_deliveries(
    connection: Connection, filters: Filters, state: DeliveryState | None = None
) -> list[dict[str, Any]]:
    """Return outstanding deliveries, the longest due first; with state 'delivered' the newest of the delivered.

    since and until are about due_at, for delivered ones about the time of the attempt. `at` in an answer is the same.
    """
    if state is not None and state not in STATES:
        raise FilterError(f"state: {state!r} is not one of {', '.join(STATES)}")
    if state == "delivered":
        columns = _COLUMNS | {"at": "a.at", "subscription": "a.subscription_id"}
        where, parameters = filters.where(columns)
        return [
            _delivery(row)
            for row in connection.execute(text(_DONE.format(where=where, verdicts="'delivered'")), parameters)
        ]
    where, parameters = filters.where(_COLUMNS)
    if state is not None:
        where, parameters["state"] = f"{where} and {_STATE} = :state", state
    statement = f"{_OUTSTANDING} where {where} order by d.due_at, d.id limit :limit"
    return [_delivery(row) for row in connection.execute(text(statement), parameters)]


def outstanding_of(connection: Connection, *, event_seq: int) -> list[dict[str, Any]]:
    """Return the outstanding deliveries of one event."""
    statement = f"{_OUTSTANDING} where d.event_seq = :seq order by d.id"
    return [_delivery(row) for row in connection.execute(text(statement), {"seq": event_seq})]


def show_delivery(connection: Connection, delivery_id: str) -> dict[str, Any]:
    """Return one delivery with its attempts, wherever it is: outstanding, delivered, a dead letter, or a test.

    Raises NotFoundError when there is no such delivery, or its record is past its retention.
    """
    uuid = parse_id("dlv", delivery_id)
    attempts = attempts_of(connection, delivery_id=uuid)
    found = _outstanding_one(connection, uuid) or _dead_one(connection, uuid) or _done_one(connection, uuid)
    if found is None:
        raise NotFoundError(f"delivery: no {text_id('dlv', uuid)}; never made, cancelled, or past its retention")
    return found | {"attempts_made": attempts}


def _outstanding_one(connection: Connection, uuid: Any) -> dict[str, Any] | None:
    row = connection.execute(text(f"{_OUTSTANDING} where d.id = :id"), {"id": uuid}).one_or_none()
    return None if row is None else _delivery(row)


def _done_one(connection: Connection, uuid: Any) -> dict[str, Any] | None:
    statement = text(_DONE.format(where="a.delivery_id = :id", verdicts="'delivered', 'dead', 'test'"))
    row = connection.execute(statement, {"id": uuid, "limit": 1}).one_or_none()
    return None if row is None else _delivery(row)


def _dead_one(connection: Connection, uuid: Any) -> dict[str, Any] | None:
    row = connection.execute(
        text("""
select l.delivery_id as id, l.event_seq, l.event_id, l.type, l.tenant, l.key, l.subscription_id, s.url, 'dead' as state,
       l.died_at as due_at, l.attempts, 0 as crashes, l.reason, l.error
from outbox.dead_letters l left join outbox.subscriptions s on s.id = l.subscription_id
where l.delivery_id = :id"""),
        {"id": uuid},
    ).one_or_none()
    return None if row is None else _delivery(row) | {"reason": row.reason, "error": row.error}


def attempts_of(
    connection: Connection, *, delivery_id: Any = None, event_seq: int | None = None
) -> list[dict[str, Any]]:
    """Return the attempts of one delivery, or of one event, in the order they were made (at most 1000)."""
    where = "delivery_id = :value" if event_seq is None else "event_seq = :value"
    value = delivery_id if event_seq is None else event_seq
    return [_attempt(row) for row in connection.execute(text(_ATTEMPTS.format(where=where)), {"value": value})]


def _delivery(row: Any) -> dict[str, Any]:
    return {
        "id": text_id("dlv", row.id),
        "event_id": row.event_id and text_id("evt", row.event_id),
        "subscription_id": row.subscription_id and text_id("sub", row.subscription_id),
        "state": row.state,
        "at": row.due_at,
        "attempts": row.attempts,
        "crashes": row.crashes,
        "type": row.type,
        "tenant": row.tenant,
        "key": row.key,
        "url": row.url,
    }


def _attempt(row: Any) -> dict[str, Any]:
    return {
        "delivery_id": text_id("dlv", row.delivery_id),
        "subscription_id": text_id("sub", row.subscription_id),
        "number": row.number,
        "at": row.at,
        "verdict": row.verdict,
        "outcome": row.outcome,
        "status": row.status,
        "milliseconds": row.milliseconds,
        "error": row.error,
        "url": row.url,
        "address": row.address,
        "headers": row.headers,
        "excerpt": None if row.excerpt is None else bytes(row.excerpt).decode("utf-8", "backslashreplace"),
    }
