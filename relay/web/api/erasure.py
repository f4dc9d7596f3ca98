"""Erasure and retention by HTTP: what is about a tenant, a key or a person goes for good; relays carry it out."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from outbox.control.filters import Filters
from outbox.control.pages import Page
from relay.operations.erase import erasure as operations
from relay.operations.erase.erasure import Erasure, Receipt
from relay.operations.erase.request import EraseError, ErasePlan, EraseRequest, Kind, plan_erasure
from relay.operations.tenant_retention import TenantRetention, list_tenant_retention, set_tenant_retention
from relay.web.answers import answer, linked
from relay.web.api.fields import PageQuery, TenantName, When
from relay.web.bodies import Body, ExactRoute
from relay.web.database import Administering, Reading
from relay.web.idempotency import Asked
from relay.web.models import listing, model_of
from relay.web.problems import invalid

__all__ = ["router"]

router = APIRouter(tags=["erasure"], route_class=ExactRoute)

_Shown = model_of(Erasure)
_Days = Annotated[int | None, Field(ge=1, le=36_500)]


class ToErase(Body):
    """A tenant, the events with a key, or those in whose payload `value` stands at `path`, such as customer.id."""

    kind: Kind
    value: str = Field(max_length=4096)
    path: str | None = Field(default=None, max_length=1000)
    within: TenantName | None = Field(default=None, description="Only events of this tenant.")

    def request(self) -> EraseRequest:
        """Return what operations take. Raises Problem where a field does not fit the kind."""
        try:
            return EraseRequest(kind=self.kind, value=self.value, path=self.path, within=self.within)
        except EraseError as error:
            raise invalid(error) from None


class Erase(ToErase):
    """An erasure."""

    cancel_undelivered: bool = Field(default=False, description="Cancel what is not delivered yet.")


class ResumeErasure(Body):
    """Whether what is not delivered yet is cancelled from now on."""

    cancel_undelivered: bool = False


class ErasureQuery(PageQuery, When):
    """A page of erasures; since and until are about when they were asked for."""


class KeepFor(Body):
    """How many days are kept of a tenant's; null is as for every tenant, and all null takes the setting away."""

    tenant: Annotated[str, Field(max_length=256)]
    events_days: _Days = None
    attempts_days: _Days = None
    dead_letters_days: _Days = None


@router.post("/erasures/plan", response_model=model_of(ErasePlan))
def plan_an_erasure(call: Administering, body: ToErase) -> Any:
    """Count what would be erased, and erase nothing. It reads every event."""
    return plan_erasure(call.connection, call.tenant, body.request())


@router.post("/erasures", status_code=201, response_model=_Shown)
def request_an_erasure(call: Administering, once: Asked, body: Erase, request: Request) -> Response:
    """Erase for good, and keep a receipt. Relays do it within seconds; a tenant is erased by the operator only."""

    def make() -> Response:
        made = operations.request_erasure(
            call.connection, call.tenant, body.request(), cancel_undelivered=body.cancel_undelivered
        )
        return answer(_Shown, made, 201, {"Location": f"{request.url.path}/{made.id}"})

    return once.run(call, make)


@router.get("/erasures", response_model=listing(Erasure))
def list_erasures(
    call: Administering, request: Request, response: Response, query: Annotated[ErasureQuery, Query()]
) -> Any:
    """List erasures, the newest first; what they erase is told as a hash."""
    filters = Filters(**query.window, limit=query.limit)
    page = operations.list_erasures(call.connection, call.tenant, filters, after=query.after)
    return linked(request, response, page)


@router.get("/erasures/{erasure_id}", response_model=_Shown)
def get_erasure(call: Administering, erasure_id: str) -> Any:
    """Show one erasure and how far it is."""
    return operations.show_erasure(call.connection, call.tenant, erasure_id)


@router.get("/erasures/{erasure_id}/receipt", response_model=model_of(Receipt))
def get_receipt(call: Administering, erasure_id: str) -> Any:
    """Show the receipt of an erasure that is done, to be handed on."""
    return operations.receipt_of(operations.show_erasure(call.connection, call.tenant, erasure_id))


@router.post("/erasures/{erasure_id}/resume", response_model=_Shown)
def resume_erasure(call: Administering, erasure_id: str, body: ResumeErasure | None = None) -> Any:
    """Go on with one that met something undelivered."""
    cancel = body is not None and body.cancel_undelivered
    return operations.resume_erasure(call.connection, call.tenant, erasure_id, cancel_undelivered=cancel)


@router.post("/erasures/{erasure_id}/cancel", response_model=_Shown)
def cancel_erasure(call: Administering, erasure_id: str) -> Any:
    """Erase nothing more; what is gone is gone."""
    return operations.cancel_erasure(call.connection, call.tenant, erasure_id)


@router.get("/tenant-retention", response_model=listing(TenantRetention))
def get_tenant_retention(
    call: Reading, request: Request, response: Response, query: Annotated[PageQuery, Query()]
) -> Any:
    """List the tenants of whom less is kept than of all, by name. For tokens of every tenant."""
    found = list_tenant_retention(call.connection, call.tenant, after=query.after, limit=query.limit + 1)
    shown = found[: query.limit]
    return linked(request, response, Page(shown, shown[-1].name if len(found) > len(shown) else None))


@router.put("/tenant-retention", response_model=model_of(TenantRetention))
def keep_for(call: Administering, body: KeepFor) -> Any:
    """Keep what is a tenant's for so long from now on. For tokens of every tenant."""
    wanted = TenantRetention(
        name=body.tenant,
        events_days=body.events_days,
        attempts_days=body.attempts_days,
        dead_letters_days=body.dead_letters_days,
    )
    set_tenant_retention(call.connection, call.tenant, wanted)
    return wanted
