"""Trying an endpoint: one real request with a test message, and what came of it."""

from __future__ import annotations

from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Response

from outbox import subscriptions as verbs
from outbox.errors import ProbeError, RecordError
from relay.operations.endpoint_tests.preview import DEFAULT_TYPE
from relay.operations.endpoint_tests.test_and_check import send_test
from relay.web.admission import awaiting_network
from relay.web.pages.visits import Visit
from relay.web.portal.customers import Managing, Posted, branding_for
from relay.web.portal.failures import advice_for, detail_of
from relay.web.portal.rendering import PortalRoute, page

__all__ = ["router"]

router = APIRouter(route_class=PortalRoute)
_DATA = '{"test": true}'


@router.get("/endpoints/{endpoint_id}/test")
def test_page(endpoint_id: str, visit: Managing) -> Response:
    """Show what would be sent."""
    return _page(visit, endpoint_id)


@router.post("/endpoints/{endpoint_id}/test")
async def test(endpoint_id: str, visit: Managing, form: Posted) -> Response:
    """Send one test message by the relay's address policy, and show the answer."""
    given = {"type": form.get("type").strip() or DEFAULT_TYPE, "data": form.get("data").strip() or _DATA}
    found: dict[str, Any] = {}
    texts = branding_for(visit.request).texts
    meanwhile = partial(awaiting_network, visit.request, visit.tenant)
    try:
        sent = await send_test(
            visit.database, visit.tenant, endpoint_id, type=given["type"], data=given["data"], meanwhile=meanwhile
        )
        told = (sent.outcome, sent.status, sent.error)
        found = {"sent": sent, "detail": detail_of(visit, sent.outcome, sent.error), "advice": advice_for(visit, *told)}
    except RecordError:
        found = {"problem": texts("test_refused"), "status": 422}
    except ProbeError:
        found = {"problem": texts("test_too_many"), "status": 429}
    response = await to_thread.run_sync(lambda: _page(visit, endpoint_id, **given, **found))
    if response.status_code == 429:
        response.headers["Retry-After"] = "60"
    return response


def _page(visit: Visit, endpoint_id: str, **found: Any) -> Response:
    with visit.transaction() as connection:
        item = verbs.get(connection, endpoint_id, tenant=visit.visitor.whose)
    shown = {"type": DEFAULT_TYPE, "data": _DATA, "sent": None, "detail": "", "advice": ""} | found
    return page(visit, "portal_endpoint_test.html", item=item, **shown)
