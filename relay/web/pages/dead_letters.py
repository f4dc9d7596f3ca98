"""Dead letters: the list, and putting back or deleting those that are ticked, or all that pass a filter."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request, Response

from outbox.control.dead_letters import find, find_by_id, list_dead_letters, purge
from outbox.control.pages import Page
from outbox.control.replay.replay import Asked as AskedReplay
from outbox.control.replay.replay import (
    Candidate,
    Matching,
    candidates_by_filter,
    candidates_by_id,
    count_by_filter,
    replay,
)
from outbox.errors import OutboxError
from outbox.ids import DeliveryId
from relay.web.pages.confirming import Instead, confirm
from relay.web.pages.csrf import Posted
from relay.web.pages.filters import FILTER_NAMES, Asked, wrong_of
from relay.web.pages.rendering import go, link_of, url_of, visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Refused, Visit, Visiting, visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
Operating = Annotated[Visit, visiting("read", "operate")]
MOST = 1_000
"""The dead letters that one form takes; more are taken by sending it again."""


@router.get("/dead-letters")
def dead_letters(visit: Visiting, request: Request) -> Response:
    """List dead letters, the newest first."""
    asked = Asked.of(request, "text")
    problem, wrong = None, {}
    try:
        with visit.transaction() as connection:
            found = list_dead_letters(connection, visit.tenant, asked.filters(), after=asked.cursor)
    except OutboxError as error:
        found, problem, wrong = Page(()), str(error), wrong_of(error)
    return visit_page(visit, "dead_letters.html", found=found, asked=asked, problem=problem, wrong=wrong)


@router.post("/dead-letters")
def act(form: Posted, visit: Operating) -> Response:
    """Put back or delete what is chosen, after a question where that is many, or cannot be taken back."""
    purging = form.get("act") == "purge"
    ids = [str(DeliveryId.of(name)) for name in form.all("id")]
    asked = Asked({name: form.get(name).strip() for name in (*FILTER_NAMES, "text")} | {"after": ""})
    if not ids and not (form.has("all") and asked.is_filtered):
        raise Refused(422, "dead letters: none is ticked; tick some, or give a filter and take all that pass it")
    if form.has("confirmed") or (ids and not purging):
        return _purge(visit, ids, asked) if purging else _replay(visit, ids, asked)
    matching = Matching(count=len(ids), exact=True)
    if not ids:
        with visit.transaction() as connection:
            matching = count_by_filter(connection, visit.tenant, asked.filters(MOST))
    verb, many = "Delete" if purging else "Put back", _in_words(matching)
    return confirm(
        visit, f"{verb} {many}?", f"{verb} {many} that you chose.", f"{verb} {many}",
        url_of(visit.request, "dead-letters"), form, back="dead-letters",
        warning="Nobody gets them any more: their payloads are deleted for good." if purging else "", danger=purging,
        instead=None if ids or purging or asked.key else _in_bulk(visit, asked),
    )  # fmt: skip


def _in_words(matching: Matching) -> str:
    """Return how many one form takes, and of how many."""
    if matching.count > MOST:
        return f"the oldest {MOST:,} of {matching.count:,}{'' if matching.exact else ' or more'} dead letters"
    return f"{matching.count:,} dead letters" if matching.count != 1 else "1 dead letter"


def _in_bulk(visit: Visit, asked: Asked) -> Instead:
    """Return the way to a bulk operation with the same filter; it knows no key."""
    given = {name: asked.values[name] for name in ("subscription", "type", "tenant", "since", "until")}
    return Instead(
        "A bulk operation puts back all of them, at a rate of yours and through crashes.", "Plan one",
        link_of(visit.request, "bulk/new", kind="redrive", **given),
    )  # fmt: skip


def _replay(visit: Visit, ids: Sequence[str], asked: Asked) -> Response:
    filters = asked.filters(MOST)
    with visit.transaction() as connection:
        found: list[Candidate] = []
        if ids:
            find_by_id(connection, visit.tenant, ids)
            for name in ids:
                found += candidates_by_id(connection, visit.tenant, name)
        else:
            found = candidates_by_filter(connection, visit.tenant, filters)
        replay(connection, visit.tenant, found, AskedReplay(ids, None if ids else filters, "dead"))
    return go(visit.request, "dead-letters", done="replayed", n=len(found))


def _purge(visit: Visit, ids: Sequence[str], asked: Asked) -> Response:
    filters = asked.filters(MOST)
    with visit.transaction() as connection:
        chosen = find_by_id(connection, visit.tenant, ids) if ids else find(connection, visit.tenant, filters)
        count = purge(connection, visit.tenant, chosen, None if ids else filters)
    return go(visit.request, "dead-letters", done="purged", n=count)
