"""Events: the list, one with all that became of it, and why each subscription gets it or does not."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from outbox.control.events import STATES, list_events, show_event
from outbox.control.pages import Page
from outbox.control.replay.replay import Asked as AskedReplay
from outbox.control.replay.replay import candidates_by_id, replay
from outbox.control.track import track_shown
from outbox.errors import OutboxError
from relay.web.pages.csrf import Posted
from relay.web.pages.filters import PAGE_ROWS, Asked, wrong_of
from relay.web.pages.rendering import HEADERS, go, visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visit, Visiting, visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
Operating = Annotated[Visit, visiting("read", "operate")]


@router.get("/events")
def events(visit: Visiting, request: Request) -> Response:
    """List events, the newest first."""
    asked = Asked.of(request, "id", "text", "state")
    if asked.id:
        return go(request, "events", asked.id)
    state = next((one for one in STATES if one == asked.state), None)
    problem, wrong = None, {}
    try:
        with visit.transaction() as connection:
            found = list_events(connection, visit.tenant, asked.filters(), state, after=asked.cursor)
    except OutboxError as error:
        found, problem, wrong = Page(()), str(error), wrong_of(error)
    return visit_page(visit, "events.html", found=found, asked=asked, states=STATES, problem=problem, wrong=wrong)


@router.get("/events/{event_id}")
def event(visit: Visiting, request: Request, event_id: str) -> Response:
    """Show one event from record to receivers: what each delivery waits for, and each subscription's reason."""
    after = request.query_params.get("after") or None
    with visit.transaction() as connection:
        item = show_event(connection, visit.tenant, event_id)
        track = track_shown(connection, visit.tenant, item, after=after, limit=PAGE_ROWS)
    return visit_page(visit, "event.html", item=item, track=track)


@router.get("/events/{event_id}/payload")
def payload(visit: Visiting, event_id: str) -> Response:
    """Send the payload as it was recorded, as a file: a browser shows it nowhere as a page."""
    with visit.transaction() as connection:
        item = show_event(connection, visit.tenant, event_id)
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{item.id}.json"'}
    return Response(item.payload or "", media_type="application/octet-stream", headers=headers)


@router.post("/events/{event_id}/replay")
def replay_event(event_id: str, form: Posted, visit: Operating) -> Response:
    """Put it back for every subscription whose delivery ended, for one, or for all that it matches now."""
    to, to_all = form.get("to").strip() or None, form.has("to_all")
    with visit.transaction() as connection:
        found = candidates_by_id(connection, visit.tenant, event_id, to, to_all=to_all)
        made = replay(connection, visit.tenant, found, AskedReplay([event_id], to="all" if to_all else to))
    return go(visit.request, "events", event_id, done="replayed", n=len(made))
