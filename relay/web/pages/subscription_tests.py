"""Trying one endpoint: a test message, a look at the way there, and the request that an event would become."""

from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from outbox import subscriptions as verbs
from outbox.errors import OutboxError, ProbeError
from relay.operations.endpoint_tests.preview import DEFAULT_TYPE, Draft, preview
from relay.operations.endpoint_tests.test_and_check import check_endpoint, send_test
from relay.web.admission import awaiting_network
from relay.web.pages.csrf import Posted
from relay.web.pages.rendering import visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visit, Visiting, visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
Writing = Annotated[Visit, visiting("read", "write")]
DEFAULT_DATA = '{"test": true}'


@router.get("/subscriptions/{subscription_id}/test")
def test_page(visit: Visiting, request: Request, subscription_id: str) -> Response:
    """Show what can be tried."""
    return _page(visit, subscription_id, event=request.query_params.get("event", ""))


def _page(visit: Visit, subscription_id: str, **found: Any) -> Response:
    with visit.transaction() as connection:
        item = verbs.get(connection, subscription_id, tenant=visit.visitor.whose)
    nothing: dict[str, Any] = dict.fromkeys(("tested", "checked", "previewed", "problem", "transformation"))
    nothing |= {"event": "", "type": DEFAULT_TYPE, "data": DEFAULT_DATA}
    return visit_page(visit, "subscription_test.html", item=item, **(nothing | found))


@router.post("/subscriptions/{subscription_id}/test")
async def test(subscription_id: str, form: Posted, visit: Writing) -> Response:
    """Send one test message, and show request, answer and what to do."""
    type_, data = form.get("type").strip() or DEFAULT_TYPE, form.get("data").strip() or DEFAULT_DATA
    given = {"type": type_, "data": data}
    try:
        found = await send_test(
            visit.database, visit.tenant, subscription_id, type=type_, data=data, meanwhile=_meanwhile(visit)
        )
    except ProbeError as error:
        return await _too_many(visit, subscription_id, error, **given)
    except OutboxError as error:
        return await _later(visit, subscription_id, problem=_words(error), **given)
    return await _later(visit, subscription_id, tested=found, **given)


@router.post("/subscriptions/{subscription_id}/check")
async def check(subscription_id: str, _form: Posted, visit: Writing) -> Response:
    """Look at the way to the endpoint step by step, and send nothing."""
    try:
        found = await check_endpoint(visit.database, visit.tenant, subscription_id, meanwhile=_meanwhile(visit))
    except ProbeError as error:
        return await _too_many(visit, subscription_id, error)
    return await _later(visit, subscription_id, checked=found)


@router.post("/subscriptions/{subscription_id}/preview")
async def preview_request(visit: Visiting, subscription_id: str, form: Posted) -> Response:
    """Show the request that an event, or a draft of one, would be sent as."""
    event, type_, data = form.get("event").strip(), form.get("type").strip(), form.get("data").strip()
    transformation = form.get("transformation").strip() if form.has("try_transformation") else None
    given = {"event": event, "type": type_ or DEFAULT_TYPE, "data": data or DEFAULT_DATA,
             "transformation": transformation}  # fmt: skip
    try:
        draft = Draft(data=data or DEFAULT_DATA, type=type_ or DEFAULT_TYPE)
        found = await preview(
            visit.database, visit.tenant, subscription_id, event or draft, transformation=transformation
        )
    except OutboxError as error:
        return await _later(visit, subscription_id, problem=_words(error), **given)
    return await _later(visit, subscription_id, previewed=found, **given)


def _meanwhile(visit: Visit) -> partial[Any]:
    return partial(awaiting_network, visit.request, visit.tenant)


async def _too_many(visit: Visit, subscription_id: str, error: ProbeError, **given: Any) -> Response:
    response = await _later(visit, subscription_id, problem=_words(error), status=429, **given)
    response.headers["Retry-After"] = "60"
    return response


async def _later(visit: Visit, subscription_id: str, **found: Any) -> Response:
    """Make the page in a thread: it asks the database."""
    return await to_thread.run_sync(lambda: _page(visit, subscription_id, **found))


def _words(error: Exception) -> str:
    return str(error).replace("RawJSON is not strict JSON", "not JSON")
