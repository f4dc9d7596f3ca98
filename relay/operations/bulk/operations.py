"""The life of a bulk operation: planned, running, paused, done, cancelled or failed. Relays carry out what runs.

What an operation may become, and who is told, stands in the database's own trigger (migrations/0022_bulk.sql).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from outbox.control.filters import Filters
from outbox.control.pages import Key, Listing
from outbox.control.tenancy import own
from outbox.control.times import rfc3339
from outbox.errors import NotFoundError
from outbox.ids import BulkOperationId, SubscriptionId
from relay.operations.bulk.became import Became, became_of
from relay.operations.bulk.plan import Plan, plan_of
from relay.operations.bulk.request import BulkError, resolve
from relay.store.bulk_pages import PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from outbox.control.pages import Page
    from relay.operations.bulk.request import BulkRequest, Kind

__all__ = [
    "DEFAULT_RATE", "BulkOperation", "State", "add_bulk", "cancel_bulk", "list_bulk", "pause_bulk", "resume_bulk",
    "set_bulk_rate", "show_bulk", "start_bulk",
]  # fmt: skip

DEFAULT_RATE = 100  # deliveries a second
State = Literal["planned", "running", "paused", "done", "cancelled", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOperation:
    """One bulk operation.

    tenant: who asked for it; None is the operator. parameters: what was asked for, times in RFC 3339. planned: how many
    its plan counted; `planned_exactly` is false where there were so many or more. done: deliveries that were put back.
    passed_over: dead letters that could not be. last_error: why it failed, or what it waits for. became: what became of
    what it made; None in lists, and before it put anything back.
    """

    id: BulkOperationId
    kind: Kind
    tenant: str | None
    subscription_id: SubscriptionId | None
    parameters: Mapping[str, Any]
    state: State
    rate: int
    planned: int
    planned_exactly: bool
    done: int
    passed_over: int
    last_error: str | None
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    sample: tuple[Mapping[str, Any], ...]
    became: Became | None = None


_INSERT = text("""
insert into outbox.bulk_operations (kind, tenant, subscription_id, parameters, plan, phase, rate)
values (:kind, :tenant, :subscription_id, :parameters, :plan, :phase, :rate) returning id
""").bindparams(bindparam("parameters", type_=JSONB), bindparam("plan", type_=JSONB))


def add_bulk(
    connection: Connection, tenant: str | None, request: BulkRequest, *, rate: int = DEFAULT_RATE
) -> BulkOperation:
    """Plan an operation and keep it, in state planned; `start_bulk` lets relays begin.

    Args:
        connection: in a transaction.
        tenant: who asks; None is the operator.
        request: what to put back.
        rate: deliveries a second at most, 1 to 100,000, over all relays.

    Raises:
        NotFoundError: the subscription is none of this tenant's.
        BulkError: it is removed, or the rate is no such number.
    """
    _check_rate(rate)
    asked = resolve(connection, tenant, request)
    row = {
        "kind": asked.kind, "tenant": tenant, "subscription_id": asked.subscription_id, "rate": rate,
        "parameters": asked.parameters, "phase": PHASES[asked.kind][0],
        "plan": _stored(plan_of(connection, asked)),
    }  # fmt: skip
    return show_bulk(connection, tenant, connection.execute(_INSERT, row).scalar_one())


def _stored(plan: Plan) -> dict[str, Any]:
    """Return what is kept of a plan: counts, and the sample without a word of an event: the row outlives it."""
    sample = [
        {"id": str(one.id), "recorded_at": rfc3339(one.recorded_at),
         "delivery_id": one.delivery_id and str(one.delivery_id)}
        for one in plan.sample
    ]  # fmt: skip
    return {"count": plan.count, "exact": plan.exact, "passed_over": plan.passed_over, "sample": sample}


_COLUMNS = """
select id, kind, tenant, subscription_id, parameters, plan, state, rate, done, passed_over, last_error, requested_by,
       created_at, started_at, finished_at
from outbox.bulk_operations
"""
_SHOW = text(f"{_COLUMNS} where id = :id and {own('tenant')}")


def show_bulk(connection: Connection, tenant: str | None, operation_id: UUID | str) -> BulkOperation:
    """Return one operation. Raises NotFoundError where it is none of this tenant's."""
    uuid = BulkOperationId.of(operation_id)
    row = connection.execute(_SHOW, {"id": uuid, "asking": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"bulk operation: no {uuid}")
    return replace(_operation(row), became=became_of(connection, row))


_LISTING = Listing(
    name="bulk_operations",
    columns={"at": "created_at", "tenant": "tenant", "subscription": "subscription_id"},
    own=own("tenant"),
    keys=(Key("id", "id", "uuid", descending=True),),
)


def list_bulk(
    connection: Connection,
    tenant: str | None,
    filters: Filters | None = None,
    *,
    state: State | None = None,
    after: str | None = None,
) -> Page[BulkOperation]:
    """Return the newest operations, `filters.limit` a page; since and until are about when they were planned."""
    if state is not None and state not in get_args(State):
        raise BulkError(f"state: {state!r} is none of {', '.join(get_args(State))}")
    wanted = filters or Filters()
    where, parameters = _LISTING.where(tenant, wanted, after)
    if state is not None:
        where, parameters = f"{where} and state = :state", parameters | {"state": state}
    statement = text(f"{_COLUMNS} where {where} {_LISTING.order_by} limit :limit")
    return _LISTING.page(connection.execute(statement, parameters).all(), wanted.limit, _operation)


def start_bulk(connection: Connection, tenant: str | None, operation_id: UUID | str) -> BulkOperation:
    """planned → running: let relays put back. Raises NotFoundError, or BulkError where it is not planned."""
    return _become(connection, tenant, operation_id, "running", ("planned",), "start")


def pause_bulk(connection: Connection, tenant: str | None, operation_id: UUID | str) -> BulkOperation:
    """running → paused: nothing more is put back; what was put back goes out. Raises as `start_bulk`."""
    return _become(connection, tenant, operation_id, "paused", ("running",), "pause")


def resume_bulk(connection: Connection, tenant: str | None, operation_id: UUID | str) -> BulkOperation:
    """paused or failed → running: go on where it was. Raises as `start_bulk`."""
    return _become(connection, tenant, operation_id, "running", ("paused", "failed"), "resume")


def cancel_bulk(connection: Connection, tenant: str | None, operation_id: UUID | str) -> BulkOperation:
    """To cancelled for good; what was put back by then goes out. Raises as `start_bulk`."""
    states: tuple[State, ...] = ("planned", "running", "paused", "failed")
    return _become(connection, tenant, operation_id, "cancelled", states, "cancel")


_HOLD = text(f"select state from outbox.bulk_operations where id = :id and {own('tenant')} for no key update")  # noqa: S608
_SET_STATE = text("update outbox.bulk_operations set state = :state where id = :id")


def _become(
    connection: Connection, tenant: str | None, operation_id: UUID | str, state: State, before: tuple[State, ...],
    verb: str,
) -> BulkOperation:  # fmt: skip
    uuid = BulkOperationId.of(operation_id)
    found = connection.execute(_HOLD, {"id": uuid, "asking": tenant}).scalar_one_or_none()
    if found is None:
        raise NotFoundError(f"bulk operation: no {uuid}")
    if found not in before:
        raise BulkError(f"bulk operation: {uuid} is {found}; only what is {' or '.join(before)} can be {_PAST[verb]}")
    connection.execute(_SET_STATE, {"id": uuid, "state": state})
    return show_bulk(connection, tenant, uuid)


_PAST = {"start": "started", "pause": "paused", "resume": "resumed", "cancel": "cancelled"}
_SET_RATE = text(f"update outbox.bulk_operations set rate = :rate where id = :id and {own('tenant')} returning id")  # noqa: S608


def set_bulk_rate(connection: Connection, tenant: str | None, operation_id: UUID | str, rate: int) -> BulkOperation:
    """Let an operation go faster or slower from now on. Raises NotFoundError, or BulkError for what is no rate."""
    _check_rate(rate)
    uuid = BulkOperationId.of(operation_id)
    if connection.execute(_SET_RATE, {"id": uuid, "rate": rate, "asking": tenant}).one_or_none() is None:
        raise NotFoundError(f"bulk operation: no {uuid}")
    return show_bulk(connection, tenant, uuid)


def _check_rate(rate: int) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int) or not 1 <= rate <= 100_000:
        raise BulkError(f"rate: {rate!r} is not a whole number from 1 to 100000, of deliveries a second")


def _operation(row: Any) -> BulkOperation:
    values: dict[str, Any] = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    plan = values.pop("plan")
    return BulkOperation(
        **values
        | {
            "id": BulkOperationId.of(row.id),
            "subscription_id": SubscriptionId.maybe(row.subscription_id),
            "planned": plan.get("count", 0),
            "planned_exactly": plan.get("exact", False),
            "sample": tuple(plan.get("sample", ())),
        }
    )
