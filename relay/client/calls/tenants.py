"""Calls about tenants: their limits, and how long what is theirs is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.subscriptions import TenantLimit
from relay.client.calls.making import get_page, send
from relay.client.results import SetLimit
from relay.operations.tenant_retention import TenantRetention

if TYPE_CHECKING:
    from outbox.control.pages import Page
    from relay.client.call import Call

__all__ = ["get_tenant_limits", "get_tenant_retention", "keep_for", "set_tenant_limit"]


def get_tenant_limits(**page: Any) -> Call[Page[TenantLimit]]:
    """List the tenants that have a limit; page: after, limit."""
    return get_page(TenantLimit, "/tenant-limits", **page)


def set_tenant_limit(tenant: str, rate_limit: str | None, rate_burst: int | None = None) -> Call[SetLimit]:
    """Limit a tenant's requests; None takes the limit away."""
    body = {"tenant": tenant, "rate_limit": rate_limit, "rate_burst": rate_burst}
    return send(SetLimit, "PUT", "/tenant-limits", body=body)


def get_tenant_retention(**page: Any) -> Call[Page[TenantRetention]]:
    """List the tenants of whom less is kept; page: after, limit."""
    return get_page(TenantRetention, "/tenant-retention", **page)


def keep_for(tenant: str, **days: int | None) -> Call[TenantRetention]:
    """Keep what is a tenant's for so long; days: events_days, attempts_days, dead_letters_days."""
    return send(TenantRetention, "PUT", "/tenant-retention", body={"tenant": tenant, **days})
