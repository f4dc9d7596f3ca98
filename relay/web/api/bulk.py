"""Bulk operations by HTTP: put back very many deliveries, planned first, at a rate; relays carry them out."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from outbox.control.filters import Filters
from relay.operations.bulk import operations
from relay.operations.bulk.operations import BulkOperation, State
from relay.operations.bulk.plan import Plan, plan_bulk
from relay.operations.bulk.request import BulkError, BulkRequest, Kind
from relay.web.answers import answer, linked
from relay.web.api.fields import SubscriptionName, TenantName, When, Window
from relay.web.bodies import Body, ExactRoute
from relay.web.database import Operating, Reading
from relay.web.idempotency import Asked
from relay.web.models import listing, model_of
from relay.web.problems import invalid

__all__ = ["router"]

router = APIRouter(prefix="/bulk-operations", tags=["bulk operations"], route_class=ExactRoute)

_Shown = model_of(BulkOperation)


class PutBack(Body, When):
    """What to put back: recover wants subscription and since, replay too; backfill a subscription; redrive a filter."""

    kind: Kind
    subscription: SubscriptionName | None = None
    type: str | None = Field(default=None, max_length=128)
    tenant: TenantName | None = None
    reason: str | None = Field(default=None, max_length=128, description="Of dead letters: the class of the error.")

    def request(self) -> BulkRequest:
        """Return what operations take. Raises Problem where a field does not fit the kind."""
        names = ("kind", "subscription", "type", "tenant", "reason")
        try:
            return BulkRequest(**self.window, **{name: getattr(self, name) for name in names})
        except BulkError as error:
            raise invalid(error) from None


class AddBulk(PutBack):
    """A bulk operation to be planned and kept."""

    rate: int = Field(default=operations.DEFAULT_RATE, ge=1, le=100_000, description="Deliveries a second at most.")
    start: bool = Field(default=False, description="Whether relays begin at once.")


class SetRate(Body):
    """How fast it goes from now on."""

    rate: int = Field(ge=1, le=100_000)


class ResumeBulk(Body):
    """How fast it goes on; null is as before."""

    rate: int | None = Field(default=None, ge=1, le=100_000)


class BulkQuery(Window):
    """A page of bulk operations."""

    subscription: SubscriptionName | None = None
    state: State | None = None


@router.post("/plan", response_model=model_of(Plan))
def plan_bulk_operation(call: Operating, body: PutBack) -> Any:
    """Count what would be put back, exactly up to 10,000, and sample it; keep nothing."""
    return plan_bulk(call.connection, call.tenant, body.request())


@router.post("", status_code=201, response_model=_Shown)
def add_bulk_operation(call: Operating, once: Asked, body: AddBulk, request: Request) -> Response:
    """Plan an operation and keep it, planned, or with `start` running. What it does is told by GET."""

    def make() -> Response:
        made = operations.add_bulk(call.connection, call.tenant, body.request(), rate=body.rate)
        if body.start:
            made = operations.start_bulk(call.connection, call.tenant, made.id)
        return answer(_Shown, made, 201, {"Location": f"{request.url.path}/{made.id}"})

    return once.run(call, make)


@router.get("", response_model=listing(BulkOperation))
def list_bulk_operations(
    call: Reading, request: Request, response: Response, query: Annotated[BulkQuery, Query()]
) -> Any:
    """List operations, the newest first; since and until are about when they were planned."""
    filters: Filters = query.filters()
    page = operations.list_bulk(call.connection, call.tenant, filters, state=query.state, after=query.after)
    return linked(request, response, page)


@router.get("/{operation_id}", response_model=_Shown)
def get_bulk_operation(call: Reading, operation_id: str) -> Any:
    """Show one operation and how far it is."""
    return operations.show_bulk(call.connection, call.tenant, operation_id)


@router.put("/{operation_id}/rate", response_model=_Shown)
def set_bulk_operation_rate(call: Operating, operation_id: str, body: SetRate) -> Any:
    """Let it go faster or slower from now on."""
    return operations.set_bulk_rate(call.connection, call.tenant, operation_id, body.rate)


@router.post("/{operation_id}/start", response_model=_Shown)
def start_bulk_operation(call: Operating, operation_id: str) -> Any:
    """Let relays begin what is planned."""
    return operations.start_bulk(call.connection, call.tenant, operation_id)


@router.post("/{operation_id}/pause", response_model=_Shown)
def pause_bulk_operation(call: Operating, operation_id: str) -> Any:
    """Put nothing more back; what was put back goes out."""
    return operations.pause_bulk(call.connection, call.tenant, operation_id)


@router.post("/{operation_id}/resume", response_model=_Shown)
def resume_bulk_operation(call: Operating, operation_id: str, body: ResumeBulk | None = None) -> Any:
    """Go on where it was, at another rate where one is given."""
    if body is not None and body.rate is not None:
        operations.set_bulk_rate(call.connection, call.tenant, operation_id, body.rate)
    return operations.resume_bulk(call.connection, call.tenant, operation_id)


@router.post("/{operation_id}/cancel", response_model=_Shown)
def cancel_bulk_operation(call: Operating, operation_id: str) -> Any:
    """End it for good; what was put back by then goes out."""
    return operations.cancel_bulk(call.connection, call.tenant, operation_id)
