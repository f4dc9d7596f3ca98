"""The first page: is anything stuck, why, and how fast does it go?"""

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from outbox import subscriptions as verbs
from outbox.control.attempts import failure_of
from outbox.control.dead_letters import list_dead_letters
from outbox.control.events import list_events
from outbox.control.filters import Filters
from outbox.control.times import duration, rough, utc
from relay.operations.status.attention import is_sending
from relay.operations.status.breakers import NamedBreaker, asks_for_less, breakers_of, cause_of, in_words
from relay.operations.status.documents import Named, Status, StuckSubscription
from relay.web.pages.kept_status import kept_status
from relay.web.pages.points import figures_of, points_of, window_named
from relay.web.pages.rendering import visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visit, Visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
_NEWEST = 6
_PROBLEMS, _NOTES = 5, 3
MOST_COUNTED = 1_000  # what waits for one subscription is counted so far, and one more


@dataclass(frozen=True, slots=True)
class Trouble:
    """An endpoint that does not get what it should, in one word and in a few.

    due and dead: how many deliveries, as text, since they are counted up to a thousand; '' where nobody counted them.
    """

    id: str
    name: str | None
    tenant: str
    url: str
    state: str
    why: str
    due: str = ""
    dead: str = ""


@router.get("/")
def overview(visit: Visiting, request: Request) -> Response:
    """Show the operator everything at a glance, and a tenant what is theirs."""
    window = window_named(request.query_params.get("window", ""))
    with visit.transaction() as connection:
        found = kept_status(request, connection, None) if visit.tenant is None else None
        points = points_of(connection, visit.visitor.whose, window)
        figures = figures_of(connection, visit.visitor.whose, window)
        troubles = _troubles_of_all(found) if found else _own_troubles(connection, visit)
        letters = list_dead_letters(connection, visit.tenant, Filters(limit=_NEWEST))
        events = list_events(connection, visit.tenant, Filters(limit=_NEWEST))
    problems, notes = ([item for item in found.findings if item.severity == severity] if found else []
                       for severity in ("problem", "note"))  # fmt: skip
    return visit_page(
        visit, "overview.html", status_=found, points=points, figures=figures, window=window,
        troubles=troubles, letters=letters, events=events,
        problems=problems[:_PROBLEMS], notes=notes[:_NOTES],
    )  # fmt: skip


def _troubles_of_all(found: Status) -> list[Trouble]:
    """Return the endpoints that status names, the worst first, each once; behind is none where nothing is sent."""
    takes = {item.subscription_id: item.slowed_to for item in found.limits.slowed.named}
    stuck = [item for item in found.stuck if item.behind_seconds is None or is_sending(found)]
    named = [
        *(_trouble(item, "disabled", item.reason) for item in found.disabled.named),
        *(_trouble(item, *_how_stuck(item, takes.get(item.subscription_id))) for item in stuck),
        *(_trouble(item, "failing", _why_broken(item)) for item in found.breakers.named),
        *(_trouble(item, "held", f"it asked to wait until {utc(item.held_until)}") for item in found.held.named),
        *(_trouble(item, "slowed", _takes(item.slowed_to)) for item in found.limits.slowed.named
          if item.health.due > item.slowed_to),
        *(_trouble(item, "paused", "drops what comes" if item.drops else "deliveries gather")
          for item in found.paused.named),
    ]  # fmt: skip
    return list({item.id: item for item in reversed(named)}.values())[::-1]


def _how_stuck(item: StuckSubscription, takes: float | None) -> tuple[str, str]:
    """Return in a word and in a few how an endpoint is behind, or fails: not if it only takes less than comes."""
    behind = f"behind for {duration(item.behind_seconds)}" if item.behind_seconds else ""
    cause, failed = cause_of(item.health), item.failed
    if takes is not None and (not cause or asks_for_less(item.health)):
        return "slowed", "; ".join(filter(None, (_takes(takes), behind)))
    if not cause and failed is not None:
        cause = f"some fail: {failure_of(failed.outcome, failed.status, failed.error)}"
    why = "; ".join(filter(None, (cause, behind))) or "its deliveries are tried again"
    return "failing" if cause or not behind else "behind", why


def _takes(slowed_to: float) -> str:
    return f"its receiver takes {rough(slowed_to)} a second"


def _why_broken(item: NamedBreaker) -> str:
    return "; ".join(filter(None, (cause_of(item.health), f"breaker {in_words(item.breaker)}")))


def _trouble(item: Named, state: str, why: str) -> Trouble:
    due, dead = (f"{count:,}" if count <= MOST_COUNTED else f"over {MOST_COUNTED:,}" for count in
                 (item.health.due, item.health.dead))  # fmt: skip
    return Trouble(str(item.subscription_id), item.name, item.tenant, item.url, state, why, due, dead)


def _own_troubles(connection: Connection, visit: Visit) -> list[Trouble]:
    """Return the tenant's subscriptions that are not active, or whose breaker is not closed."""
    own = verbs.list(connection, tenant=visit.visitor.whose, limit=1000)
    breakers = breakers_of(connection, visit.tenant, [item.id for item in own])
    told = [
        (item, breaker, in_words(breaker) or item.disabled_reason or "")
        for item, breaker in zip(own, breakers.values(), strict=True)
    ]
    return [
        Trouble(item.id, item.name, item.tenant, item.url, item.state if item.state != "active" else "failing", why)
        for item, breaker, why in told
        if item.state != "active" or breaker.state != "closed"
    ][:20]
