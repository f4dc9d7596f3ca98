"""Bulk operations: plan one, look at how much it would be, start it, and watch, pause, resume or cancel it."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from outbox.control.filters import Filters
from outbox.errors import OutboxError
from relay.operations.bulk.operations import (
    DEFAULT_RATE,
    add_bulk,
    cancel_bulk,
    list_bulk,
    pause_bulk,
    resume_bulk,
    set_bulk_rate,
    show_bulk,
    start_bulk,
)
from relay.operations.bulk.request import BulkError, BulkRequest
from relay.operations.status.names import names_of
from relay.web.pages.confirming import confirm
from relay.web.pages.csrf import Form, Posted
from relay.web.pages.filters import PAGE_ROWS, Asked, times_in, wrong_of
from relay.web.pages.rendering import go, url_of, visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visit, Visiting, visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
Operating = Annotated[Visit, visiting("read", "operate")]
KINDS = (
    ("recover", "recover: what failed for one subscription since a time"),
    ("replay", "replay: what went to one subscription in a window, once more"),
    ("backfill", "backfill: what was recorded before one subscription, or a type that it gets, was added"),
    ("redrive", "redrive: dead letters by filter"),
)
_VERBS = {"start": (start_bulk, "started"), "pause": (pause_bulk, "stopped"), "resume": (resume_bulk, "going-on")}
_EMPTY = {"kind": "recover", "subscription": "", "since": "", "until": "", "type": "", "tenant": "", "reason": "",
          "rate": str(DEFAULT_RATE)}  # fmt: skip


@router.get("/bulk")
def bulk(visit: Visiting, request: Request) -> Response:
    """List bulk operations, the newest first."""
    asked = Asked.of(request)
    with visit.transaction() as connection:
        found = list_bulk(connection, visit.tenant, Filters(limit=PAGE_ROWS), after=asked.cursor)
        names = names_of(connection, visit.tenant, [item.subscription_id for item in found])
    return visit_page(visit, "bulk_list.html", found=found, asked=asked, names=names)


@router.get("/bulk/new")
def new(visit: Operating, request: Request) -> Response:
    """Ask what is to be put back; the address may fill in the form. Without a kind it is what failed since a day."""
    given = {name: value for name, value in request.query_params.items() if name in _EMPTY}
    return _form(visit, {"since": "" if "kind" in given else "24h"} | given)


def _form(visit: Visit, texts: dict[str, str], error: OutboxError | None = None) -> Response:
    return visit_page(
        visit, "bulk_new.html", status=422 if error else 200, texts=_EMPTY | texts, kinds=KINDS,
        problem=str(error) if error else None, wrong=wrong_of(error) if error else {},
    )  # fmt: skip


@router.post("/bulk/new")
def plan(visit: Operating, form: Posted) -> Response:
    """Plan it and keep the plan; nothing is put back yet."""
    try:
        request, rate = _request_in(form), _rate_in(form)
        with visit.transaction() as connection:
            made = add_bulk(connection, visit.tenant, request, rate=rate)
    except OutboxError as error:
        return _form(visit, dict(form), error)
    return go(visit.request, "bulk", made.id, done="planned")


def _request_in(form: Form) -> BulkRequest:
    given: dict[str, Any] = {name: form.get(name).strip() or None for name in
                             ("subscription", "type", "tenant", "reason")}  # fmt: skip
    return BulkRequest(kind=form.get("kind"), **given, **times_in(dict(form)))  # type: ignore[arg-type]


def _rate_in(form: Form) -> int:
    text = form.get("rate").strip() or str(DEFAULT_RATE)
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise BulkError(f"rate: {text[:40]!r} is no whole number of deliveries a second")
    return int(text)


@router.get("/bulk/{operation_id}")
def operation(visit: Visiting, operation_id: str) -> Response:
    """Show one operation, its plan and how far it is."""
    with visit.transaction() as connection:
        item = show_bulk(connection, visit.tenant, operation_id)
        names = names_of(connection, visit.tenant, [item.subscription_id])
    return visit_page(visit, "bulk.html", item=item, names=names)


@router.post("/bulk/{operation_id}/rate")
def change_rate(visit: Operating, operation_id: str, form: Posted) -> Response:
    """Change how many deliveries a second it puts back."""
    with visit.transaction() as connection:
        set_bulk_rate(connection, visit.tenant, operation_id, _rate_in(form))
    return go(visit.request, "bulk", operation_id, done="rate")


@router.post("/bulk/{operation_id}/cancel")
def cancel(visit: Operating, operation_id: str, form: Posted) -> Response:
    """End it for good, after a question."""
    with visit.transaction() as connection:
        item = show_bulk(connection, visit.tenant, operation_id)
        if form.has("confirmed"):
            cancel_bulk(connection, visit.tenant, operation_id)
            return go(visit.request, "bulk", item.id, done="ended")
    return confirm(
        visit, "Cancel this operation?", f"It put back {item.done:,} of {item.planned:,} so far; those stay so.",
        "Cancel the operation", url_of(visit.request, f"bulk/{item.id}/cancel"), form, back=f"bulk/{item.id}",
        danger=True,
    )  # fmt: skip


@router.post("/bulk/{operation_id}/{verb}")
def move(visit: Operating, operation_id: str, verb: str, _form: Posted) -> Response:
    """Start, pause or resume it."""
    if verb not in _VERBS:
        raise BulkError("operation: can be started, paused, resumed or cancelled")
    act, done = _VERBS[verb]
    with visit.transaction() as connection:
        item = act(connection, visit.tenant, operation_id)
    return go(visit.request, "bulk", item.id, done=done)
