"""Subscriptions: the list, one of them with its health and statistics, and what is done to it by a button."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from outbox import subscriptions as verbs
from outbox.control.advice import advice_on_last
from outbox.control.by_hand import retry_now, waiting_by_filter
from outbox.control.deliveries import list_deliveries
from outbox.control.filters import Filters
from outbox.control.times import duration, who_held
from outbox.errors import SubscriptionError
from outbox.subscriptions import Subscription
from relay.operations.live_secrets import live_secrets
from relay.operations.status.breakers import Breaker, breaker_of, breakers_of, cause_of, in_words
from relay.operations.status.documents import SubscriptionHealth
from relay.operations.status.lanes import blocked_of
from relay.operations.status.late_subscriptions import retries_of, subscription_health
from relay.web.pages.confirming import Reason, confirm
from relay.web.pages.csrf import Posted
from relay.web.pages.filters import Asked
from relay.web.pages.points import figures_of, points_of, window_named
from relay.web.pages.rendering import go, url_of, visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Refused, Visit, Visiting, visiting

__all__ = ["router", "shown_state"]

router = APIRouter(route_class=PageRoute)
Writing = Annotated[Visit, visiting("read", "write")]
Operating = Annotated[Visit, visiting("read", "operate")]
STATES = ("active", "paused", "disabled", "removed")
_PAGE_ROWS = 50
_NEWEST = 15
_RETRIED_AT_ONCE = 10_000


@router.get("/subscriptions")
def subscriptions(visit: Visiting, request: Request) -> Response:
    """List subscriptions, oldest first."""
    asked = Asked.of(request, "state")
    try:
        found, breakers = _listed(visit, asked)
        problem = None
    except SubscriptionError as error:
        found, breakers, problem = [], [], str(error)
    rows = [
        (item, shown_state(item, breaker), in_words(breaker)) for item, breaker in zip(found, breakers, strict=True)
    ]
    more = found[-1].id if len(found) == _PAGE_ROWS else ""
    return visit_page(visit, "subscriptions.html", rows=rows, asked=asked, more=more, states=STATES, problem=problem)


def _listed(visit: Visit, asked: Asked) -> tuple[list[Subscription], list[Breaker]]:
    whose = asked.tenant if visit.tenant is None and asked.tenant else visit.visitor.whose
    state = next((name for name in STATES if name == asked.state), None)
    with visit.transaction() as connection:
        found = verbs.list(
            connection, tenant=whose, state=state, type=asked.type or None, after=asked.cursor,  # type: ignore[arg-type]
            limit=_PAGE_ROWS,
        )  # fmt: skip
        return found, list(breakers_of(connection, visit.tenant, [item.id for item in found]).values())


def shown_state(item: Subscription, breaker: Breaker) -> str:
    """Return the one word for a subscription: what a person did, or else what its endpoint does."""
    if item.state != "active":
        return item.state
    return "failing" if breaker.state != "closed" else "active"


@router.get("/subscriptions/{subscription_id}")
def subscription(visit: Visiting, request: Request, subscription_id: str) -> Response:
    """Show one subscription, its backlog, its endpoint's health and its statistics; never its secret."""
    window = window_named(request.query_params.get("window", ""))
    with visit.transaction() as connection:
        item = verbs.get(connection, subscription_id, tenant=visit.visitor.whose, removed=True)
        health = subscription_health(connection, visit.tenant, item.id)
        breaker = breaker_of(connection, visit.tenant, item.id)
        points = points_of(connection, visit.visitor.whose, window, item.id)
        figures = figures_of(connection, visit.visitor.whose, window, item.id)
        outstanding = list_deliveries(connection, visit.tenant, Filters(subscription=item.id, limit=_NEWEST))
        blocked = blocked_of(connection, visit.tenant, item.id) if item.ordered else ()
        retries = retries_of(connection, visit.tenant, item.id)
        secrets = live_secrets(connection, visit.tenant, item.id)
    hold = _hold_of(item, breaker, health)
    return visit_page(
        visit, "subscription.html", item=item, health=health, breaker=breaker, breaker_words=in_words(breaker),
        state="held" if hold else shown_state(item, breaker), points=points, figures=figures, window=window,
        outstanding=outstanding, hold=hold, cause=cause_of(health), blocked=blocked,
        advice=advice_on_last(item.id, health.last_outcome, health.last_status, health.last_error),
        secrets=secrets,
        retries=retries if item.state == "active" and not hold and breaker.state != "open" else None,
    )  # fmt: skip


def _hold_of(item: Subscription, breaker: Breaker, health: SubscriptionHealth) -> str:
    """Return in words how an active subscription with a sound endpoint is held back, '' where it is not."""
    left = health.held_seconds
    if left is None or shown_state(item, breaker) != "active":
        return ""
    return f"{who_held(left)}, for {duration(left)} more"


@router.post("/subscriptions/{subscription_id}/pause")
def pause(subscription_id: str, form: Posted, visit: Writing) -> Response:
    """Stop sending; deliveries gather, or with `drop` none are made of what comes meanwhile."""
    drop = form.has("drop")
    with visit.transaction() as connection:
        item = verbs.pause(connection, subscription_id, drop=drop, tenant=visit.visitor.whose)
    return go(visit.request, "subscriptions", item.id, done="dropping" if drop else "paused")


@router.post("/subscriptions/{subscription_id}/disable")
def disable(subscription_id: str, form: Posted, visit: Writing) -> Response:
    """Stop sending for a reason that everybody is shown, after a question for it; deliveries gather."""
    wrong = ""
    with visit.transaction() as connection:
        item = verbs.get(connection, subscription_id, tenant=visit.visitor.whose)
        if form.has("confirmed"):
            try:
                verbs.disable(connection, item.id, reason=form.get("reason").strip(), tenant=visit.visitor.whose)
                return go(visit.request, "subscriptions", item.id, done="disabled")
            except SubscriptionError as error:
                wrong = str(error)
    return confirm(
        visit, "Disable this subscription?", f"Nothing is sent to {item.url} until it is resumed; deliveries gather.",
        "Disable it", url_of(visit.request, f"subscriptions/{item.id}/disable"), form, back=f"subscriptions/{item.id}",
        danger=True, reason=Reason("Why, for everybody who looks, its owner too.", is_needed=True, wrong=wrong),
    )  # fmt: skip


@router.post("/subscriptions/{subscription_id}/resume")
def resume(subscription_id: str, _form: Posted, visit: Writing) -> Response:
    """Send again, whether it was paused, disabled or held back."""
    with visit.transaction() as connection:
        item = verbs.resume(connection, subscription_id, tenant=visit.visitor.whose)
    return go(visit.request, "subscriptions", item.id, done="resumed")


@router.post("/subscriptions/{subscription_id}/retry")
def retry_waiting(subscription_id: str, _form: Posted, visit: Operating) -> Response:
    """Make due now what waits for a retry; of more than 10,000 those that come first."""
    with visit.transaction() as connection:
        item = verbs.get(connection, subscription_id, tenant=visit.visitor.whose)
        wanted = Filters(subscription=item.id, limit=_RETRIED_AT_ONCE)
        made = retry_now(connection, visit.tenant, waiting_by_filter(connection, visit.tenant, wanted), wanted)
    return go(visit.request, "subscriptions", item.id, done="retried", n=len(made.deliveries))


@router.post("/subscriptions/{subscription_id}/remove")
def remove(subscription_id: str, form: Posted, visit: Writing) -> Response:
    """End it for good, after a question."""
    with visit.transaction() as connection:
        item = verbs.get(connection, subscription_id, tenant=visit.visitor.whose)
        if form.has("confirmed"):
            verbs.remove(connection, item.id, tenant=visit.visitor.whose)
            return go(visit.request, "subscriptions", done="removed")
        outstanding = subscription_health(connection, visit.tenant, item.id).outstanding
    waiting = "1,000 deliveries or more" if outstanding > 1000 else f"{outstanding:,} outstanding deliveries"
    return confirm(
        visit, "Remove this subscription?", f"No event matches {item.url} any more.", "Remove it for good",
        url_of(visit.request, f"subscriptions/{item.id}/remove"), form, back=f"subscriptions/{item.id}",
        warning=f"{waiting} are cancelled. Its dead letters stay.", danger=True,
    )  # fmt: skip


@router.get("/subscriptions/{subscription_id}/secret")
def secret_page(subscription_id: str, visit: Writing) -> Response:
    """Ask how the secret is to be exchanged."""
    with visit.transaction() as connection:
        item = verbs.get(connection, subscription_id, tenant=visit.visitor.whose)
    return visit_page(visit, "secret.html", item=item, made=None, is_new=False)


@router.post("/subscriptions/{subscription_id}/secret")
def rotate_secret(subscription_id: str, form: Posted, visit: Writing) -> Response:
    """Give it a new secret and show that, this once; the old ones sign along for a while."""
    overlap = form.get("overlap_seconds").strip()
    if overlap and not (overlap.isascii() and overlap.isdigit() and len(overlap) < 9):
        raise Refused(422, f"overlap_seconds: {overlap[:40]!r} is no whole number of seconds, 0 to 2592000")
    with visit.transaction() as connection:
        made = verbs.rotate_secret(
            connection, subscription_id, tenant=visit.visitor.whose, secret=form.get("secret").strip() or None,
            overlap_seconds=int(overlap) if overlap else None,
        )  # fmt: skip
        secrets = live_secrets(connection, visit.tenant, made.id)
    return visit_page(visit, "secret.html", item=made, made=made, is_new=False, secrets=secrets)
