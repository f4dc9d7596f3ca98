"""Calls about bulk operations: plan, keep, start, pause, resume, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.client.calls.making import get_one, get_page, not_none, send

if TYPE_CHECKING:
    from outbox.control.pages import Page
    from relay.client.call import Call
    from relay.operations.bulk.operations import BulkOperation
    from relay.operations.bulk.plan import Plan

__all__ = [
    "add_bulk_operation",
    "cancel_bulk_operation",
    "get_bulk_operation",
    "list_bulk_operations",
    "pause_bulk_operation",
    "plan_bulk_operation",
    "resume_bulk_operation",
    "set_bulk_operation_rate",
    "start_bulk_operation",
]


def plan_bulk_operation(kind: str, **filters: Any) -> Call[Plan]:
    """Count what would be put back; filters: subscription, since, until, type, tenant, reason."""
    from relay.operations.bulk.plan import Plan

    return send(Plan, "POST", "/bulk-operations/plan", body={"kind": kind, **filters})


def add_bulk_operation(kind: str, *, once: str | None = None, **given: Any) -> Call[BulkOperation]:
    """Plan and keep a bulk operation; given: the filters of its plan, rate, start."""
    from relay.operations.bulk.operations import BulkOperation

    return send(BulkOperation, "POST", "/bulk-operations", body={"kind": kind, **given}, once=once)


def list_bulk_operations(**filters: Any) -> Call[Page[BulkOperation]]:
    """List bulk operations; filters: since, until, tenant, subscription, state, after, limit."""
    from relay.operations.bulk.operations import BulkOperation

    return get_page(BulkOperation, "/bulk-operations", **filters)


def get_bulk_operation(operation_id: object) -> Call[BulkOperation]:
    """Show one operation and how far it is."""
    from relay.operations.bulk.operations import BulkOperation

    return get_one(BulkOperation, "/bulk-operations/{}", operation_id)


def set_bulk_operation_rate(operation_id: object, rate: int) -> Call[BulkOperation]:
    """Let it go faster or slower."""
    from relay.operations.bulk.operations import BulkOperation

    return send(BulkOperation, "PUT", "/bulk-operations/{}/rate", operation_id, body={"rate": rate})


def start_bulk_operation(operation_id: object) -> Call[BulkOperation]:
    """Let relays begin what is planned."""
    return _bulk(operation_id, "start")


def pause_bulk_operation(operation_id: object) -> Call[BulkOperation]:
    """Put nothing more back."""
    return _bulk(operation_id, "pause")


def resume_bulk_operation(operation_id: object, rate: int | None = None) -> Call[BulkOperation]:
    """Go on where it was, at this rate where one is given."""
    return _bulk(operation_id, "resume", body=not_none(rate=rate))


def cancel_bulk_operation(operation_id: object) -> Call[BulkOperation]:
    """End it for good."""
    return _bulk(operation_id, "cancel")


def _bulk(operation_id: object, verb: str, body: Any = None) -> Call[BulkOperation]:
    from relay.operations.bulk.operations import BulkOperation

    return send(BulkOperation, "POST", "/bulk-operations/{}/{}", operation_id, verb, body=body)
