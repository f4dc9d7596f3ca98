"""Endpoints of a customer: the list, one with its state and statistics, and what is done to it by a button."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from outbox import statistics
from outbox import subscriptions as verbs
from outbox.control.filters import Filters
from outbox.control.history import list_attempts
from outbox.control.replay.replay import Asked as AskedReplay
from outbox.control.replay.replay import candidates_by_filter, replay
from relay.operations.live_secrets import live_secrets
from relay.operations.status.breakers import breakers_of
from relay.web.pages.filters import SINCE
from relay.web.pages.points import figures_of, points_of, window_named
from relay.web.pages.rendering import url_of
from relay.web.portal.customers import Looking, Managing, PortalRefused, Posted, branding_for
from relay.web.portal.failures import advice_for
from relay.web.portal.naming import called_with_url
from relay.web.portal.rendering import HOME, PortalRoute, confirm, go, page
from relay.web.portal.secrets import old_until

if TYPE_CHECKING:
    from outbox.statistics import Statistics
    from outbox.subscriptions import Subscription
    from relay.operations.status.breakers import Breaker

__all__ = ["MOST_SHOWN", "router"]

router = APIRouter(route_class=PortalRoute)
MOST_SHOWN = 1_000
"""The endpoints that a page lists; a tenant may have no more by the portal."""
MOST_REPLAYED = 1_000
_NEWEST = 8


@dataclass(frozen=True, slots=True)
class _Row:
    """An endpoint of the list: what it is, the one word for how it is, and what was counted of it."""

    item: Subscription
    state: str
    figures: Statistics | None


@router.get("/")
def endpoints(visit: Looking, request: Request) -> Response:
    """List the endpoints with what was counted of each, and the statistics of all."""
    window = window_named(request.query_params.get("window", ""))
    whose = visit.visitor.whose
    with visit.transaction() as connection:
        found = verbs.list(connection, tenant=whose, limit=MOST_SHOWN)
        breakers = breakers_of(connection, visit.tenant, [item.id for item in found]).values()
        counted = statistics.rank(connection, whose, "subscription", over=window, limit=MOST_SHOWN)
        figures, points = figures_of(connection, whose, window), points_of(connection, whose, window)
    by_id = {str(one.subscription_id): one for one in counted}
    rows = [
        _Row(item, _state(item, breaker), by_id.get(str(item.id)))
        for item, breaker in zip(found, breakers, strict=True)
    ]
    most = request.app.state.config.portal_max_endpoints
    return page(
        visit, "portal_endpoints.html", rows=rows, window=window, figures=figures, points=points,
        is_full=len(found) >= most,
    )  # fmt: skip


def _state(item: Subscription, breaker: Breaker) -> str:
    """Return what a person did, or else what the endpoint does."""
    return "failing" if item.state == "active" and breaker.state != "closed" else item.state


@router.get("/endpoints/{endpoint_id}")
def endpoint(visit: Looking, request: Request, endpoint_id: str) -> Response:
    """Show one endpoint; never its secret, nor what the provider has noted or stored with it."""
    window = window_named(request.query_params.get("window", ""))
    whose = visit.visitor.whose
    with visit.transaction() as connection:
        item = verbs.get(connection, endpoint_id, tenant=whose)
        (breaker,) = breakers_of(connection, visit.tenant, [item.id]).values()
        figures = figures_of(connection, whose, window, item.id)
        points = points_of(connection, whose, window, item.id)
        secrets = live_secrets(connection, visit.tenant, item.id)
        newest = list_attempts(connection, visit.tenant, Filters(subscription=item.id, limit=_NEWEST))
    advice = ""
    if figures.last_failed_at and (not figures.last_delivered_at or figures.last_failed_at > figures.last_delivered_at):
        advice = advice_for(visit, figures.last_outcome, figures.last_status, figures.last_error)
    return page(
        visit, "portal_endpoint.html", item=item, state=_state(item, breaker), window=window, figures=figures,
        points=points, newest=newest, advice=advice, until=old_until(secrets),
        secret_since=secrets[0].created_at if secrets else None,
    )  # fmt: skip


@router.post("/endpoints/{endpoint_id}/pause")
def pause(endpoint_id: str, visit: Managing, _form: Posted) -> Response:
    """Stop sending; what comes meanwhile waits."""
    with visit.transaction() as connection:
        item = verbs.pause(connection, endpoint_id, tenant=visit.visitor.whose)
    return go(visit.request, "endpoints", item.id, done="paused")


@router.post("/endpoints/{endpoint_id}/resume")
def resume(endpoint_id: str, visit: Managing, _form: Posted) -> Response:
    """Send again, whether it was paused, disabled or held back."""
    with visit.transaction() as connection:
        item = verbs.resume(connection, endpoint_id, tenant=visit.visitor.whose)
    return go(visit.request, "endpoints", item.id, done="resumed")


@router.post("/endpoints/{endpoint_id}/remove")
def remove(endpoint_id: str, visit: Managing, form: Posted) -> Response:
    """End it for good, after a question."""
    with visit.transaction() as connection:
        item = verbs.get(connection, endpoint_id, tenant=visit.visitor.whose)
        if form.has("confirmed"):
            verbs.remove(connection, item.id, tenant=visit.visitor.whose)
            return go(visit.request, done="removed")
    texts = branding_for(visit.request).texts
    return confirm(
        visit, texts("remove_title"), texts("remove_question", url=called_with_url(visit.request, item)),
        texts("remove_verb"), {}, back=url_of(visit.request, HOME, "endpoints", item.id),
    )  # fmt: skip


@router.post("/endpoints/{endpoint_id}/replay")
def replay_failed(endpoint_id: str, visit: Managing, form: Posted) -> Response:
    """Send again what was given up, after a question that says how much it is."""
    since = form.get("since")
    with visit.transaction() as connection:
        item = verbs.get(connection, endpoint_id, tenant=visit.visitor.whose)
        filters = Filters(subscription=item.id, since=SINCE.get(since), limit=MOST_REPLAYED)
        found = candidates_by_filter(connection, visit.tenant, filters)
        if not found:
            raise PortalRefused(409, "replay_none")
        if form.has("confirmed"):
            made = replay(connection, visit.tenant, found, AskedReplay((), filters, "dead"))
            return go(visit.request, "endpoints", item.id, done="replayed", n=len(made))
    texts = branding_for(visit.request).texts
    number = f"{len(found):,}"
    question = texts("replay_question", n=number, url=called_with_url(visit.request, item))
    question += f" {texts('replay_most')}" if len(found) == MOST_REPLAYED else ""
    return confirm(
        visit, texts("replay_title"), question, texts("replay_verb", n=number), {"since": since},
        back=url_of(visit.request, HOME, "endpoints", item.id),
    )  # fmt: skip
