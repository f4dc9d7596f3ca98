"""Attempts: every POST that is kept, newest first, found by what it was about, what came of it, and text in it."""

from fastapi import APIRouter, Request, Response

from outbox.control.filters import FAILED, OUTCOMES
from outbox.control.history import list_attempts
from outbox.control.pages import Page
from outbox.errors import OutboxError
from relay.web.pages.filters import Asked, wrong_of
from relay.web.pages.rendering import visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)


@router.get("/attempts")
def attempts(visit: Visiting, request: Request) -> Response:
    """Search the history. A page may be short where what is looked for is rare; the next one looks further back."""
    asked = Asked.of(request, "outcome", "status", "text")
    problem, wrong = None, {}
    try:
        with visit.transaction() as connection:
            found = list_attempts(connection, visit.tenant, asked.filters(), after=asked.cursor)
    except OutboxError as error:
        found, problem, wrong = Page(()), str(error), wrong_of(error)
    return visit_page(
        visit, "attempts.html", found=found, asked=asked, outcomes=(FAILED, *OUTCOMES), problem=problem, wrong=wrong
    )
