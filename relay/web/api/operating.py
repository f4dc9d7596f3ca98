"""For the operator by HTTP: status and findings, the switch of all sending, the limits of tenants, the audit."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from outbox.control import audit
from outbox.control.findings import Finding
from outbox.control.tenancy import operator_only
from outbox.subscriptions import TenantLimit, limit_tenant, list_tenant_limits
from relay.operations import sending_switch
from relay.operations.status.documents import Status
from relay.operations.status.status import status
from relay.web.answers import MOST_LISTED, linked, listed
from relay.web.api.fields import PageQuery, Window
from relay.web.bodies import Body, ExactRoute
from relay.web.database import Administering, Operating, Reading
from relay.web.models import listing, model_of

__all__ = ["router"]

router = APIRouter(tags=["operation"], route_class=ExactRoute)

Action = Literal[audit.ACTIONS]  # type: ignore[valid-type]


class PauseSending(Body):
    reason: str | None = Field(default=None, min_length=1, max_length=500, description="Why, for everybody who looks.")


class LimitTenant(Body):
    tenant: Annotated[str, Field(max_length=256)]
    rate_limit: str | None = Field(
        description="N/s, N/min or N/h; null for no limit.", pattern="^[1-9][0-9]{0,4}/(s|min|h)$"
    )
    rate_burst: int | None = Field(default=None, ge=1, le=10_000, description="Requests at once after a pause.")


class SetLimit(BaseModel):
    """The limit of a tenant; null where it has none."""

    model_config = ConfigDict(from_attributes=True)

    tenant: str
    rate_limit: str | None
    rate_burst: int | None


class LimitQuery(PageQuery):
    """A page of tenants' limits."""


class AuditQuery(Window):
    """A page of the audit."""

    subject: str | None = Field(
        default=None, max_length=100, description="sub_…, dlv_…, evt_…, tok_…, or a sealing key's id."
    )
    actor: str | None = Field(default=None, max_length=256)
    action: Action | None = None


@router.get("/status", response_model=model_of(Status))
def get_status(call: Reading) -> Any:
    """Tell what is stuck, why, and whether anything was lost. For tokens of every tenant."""
    return status(call.connection, call.tenant)


@router.get("/findings", response_model=list[model_of(Finding)])  # type: ignore[misc]
def get_findings(call: Reading) -> Any:
    """List what a person should look at, the worst first, each with what mends it. For tokens of every tenant."""
    return status(call.connection, call.tenant).findings


@router.get("/sending", response_model=model_of(sending_switch.Sending))
def get_sending(call: Reading) -> Any:
    """Show the switch of all sending. For tokens of every tenant."""
    return sending_switch.read_sending(call.connection, call.tenant)


@router.post("/sending/pause", response_model=model_of(sending_switch.Sending))
def pause_sending(call: Operating, body: PauseSending | None = None) -> Any:
    """Stop all sending, of every relay on every host, within a second. For tokens of every tenant."""
    return sending_switch.pause_all(call.connection, call.tenant, body.reason if body else None)


@router.post("/sending/resume", response_model=model_of(sending_switch.Resumed))
def resume_sending(call: Operating) -> Any:
    """Let all relays send again; what is due goes out at once. For tokens of every tenant."""
    return sending_switch.resume_sending(call.connection, call.tenant)


@router.get("/tenant-limits", response_model=listing(TenantLimit))
def get_tenant_limits(
    call: Reading, request: Request, response: Response, query: Annotated[LimitQuery, Query()]
) -> Any:
    """List the tenants that have a limit, by name. For tokens of every tenant."""
    operator_only(call.tenant, "tenant limits")
    found = list_tenant_limits(call.connection, after=query.after, limit=min(MOST_LISTED, query.limit + 1))
    return linked(request, response, listed(found, query.limit, lambda one: one.tenant))


@router.put("/tenant-limits", response_model=SetLimit)
def set_tenant_limit(call: Administering, body: LimitTenant) -> Any:
    """Limit the requests to all of a tenant's endpoints; null takes the limit away. For tokens of every tenant."""
    operator_only(call.tenant, "tenant limits")
    made = limit_tenant(call.connection, body.tenant, rate_limit=body.rate_limit, rate_burst=body.rate_burst)
    return made or {"tenant": body.tenant, "rate_limit": None, "rate_burst": None}


@router.get("/audit", response_model=listing(audit.AuditEntry))
def get_audit(call: Reading, request: Request, response: Response, query: Annotated[AuditQuery, Query()]) -> Any:
    """List who changed what, when, and what it was before: newest first. Never a secret."""
    page = audit.list_audit(
        call.connection,
        call.tenant,
        query.filters(),
        subject=query.subject,
        actor=query.actor,
        action=query.action,
        after=query.after,
    )
    return linked(request, response, page)
