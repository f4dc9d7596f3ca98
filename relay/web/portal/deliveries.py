"""Deliveries of a customer: what was sent and is still to be sent, one as a timeline, and sending one again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from outbox import subscriptions as verbs
from outbox.control.dead_letters import list_dead_letters, show_dead_letter
from outbox.control.deliveries import list_deliveries, show_delivery
from outbox.control.events import show_event
from outbox.control.filters import FAILED, OUTCOMES, Filters
from outbox.control.history import list_attempts
from outbox.control.replay.replay import Asked as AskedReplay
from outbox.control.replay.replay import candidates_by_id, replay
from outbox.control.sent_again import sent_again_as, still_dead
from outbox.control.waits import Waits, read_waits
from outbox.errors import FilterError, NotFoundError, ReplayError
from relay.web.pages.filters import PAGE_ROWS, SINCE
from relay.web.pages.visits import Visit
from relay.web.portal.customers import Looking, Managing, PortalRefused, Posted
from relay.web.portal.endpoints import MOST_SHOWN
from relay.web.portal.failures import advice_for, detail_of
from relay.web.portal.naming import called_with_url
from relay.web.portal.rendering import PortalRoute, go, page

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from outbox.control.attempts import ListedAttempt
    from outbox.control.dead_letters import ListedDeadLetter
    from outbox.control.deliveries import DeliveryDetails, ListedDelivery
    from outbox.ids import DeliveryId

__all__ = ["MANY", "SHOWS", "TOLD_WAITS", "Row", "grouped", "router"]

router = APIRouter(route_class=PortalRoute)
MANY = 4
"""So many equal failures on a page are shown as one."""
SHOWS = ("latest", "failed", "waiting", "given_up")
_REPLAYABLE = ("delivered", "cancelled", "dead")
_ENDED = (*_REPLAYABLE, "replayed_or_purged")
TOLD_WAITS = ("removed", "sending", "disabled", "paused", "breaker", "behind", "retry", "later", "held", "limit",
              "slowed", "tenant_limit", "in_flight", "batch", "turn")  # fmt: skip
"""What a customer is told that a delivery waits for; the rest is about how the provider's relays run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the list, whatever it is of: an attempt, a delivery that waits, or one that was given up.

    `named` is the event's key, or its id. `detail` is what is told of a failure besides its outcome.
    """

    id: DeliveryId
    type: str | None
    named: str
    is_test: bool
    state: str
    endpoint: str
    at: datetime | None
    outcome: str | None = None
    status: int | None = None
    detail: str = ""


@router.get("/deliveries")
def deliveries(visit: Looking, request: Request) -> Response:
    """List what is asked for, a page at a time."""
    names = ("show", "type", "endpoint", "since", "after")
    asked = {name: request.query_params.get(name, "").strip() for name in names}
    show = asked["show"] if asked["show"] in SHOWS else SHOWS[0]
    with visit.transaction() as connection:
        own = verbs.list(connection, tenant=visit.visitor.whose, limit=MOST_SHOWN)
        urls = {str(item.id): called_with_url(request, item) for item in own}
        try:
            rows, next_ = _listed(connection, visit, show, asked, urls)
        except (FilterError, NotFoundError):  # no such endpoint or type, or a page of another list
            rows, next_ = [], None
    return page(
        visit, "portal_deliveries.html", groups=grouped(rows), next=next_, asked={**asked, "show": show}, shows=SHOWS,
        urls=urls, is_filtered=any(asked[name] for name in ("show", "type", "endpoint", "since")),
    )  # fmt: skip


def _listed(
    connection: Connection, visit: Visit, show: str, asked: dict[str, str], urls: dict[str, str]
) -> tuple[list[Row], str | None]:
    after = asked["after"] or None
    given: dict[str, Any] = {"type": asked["type"] or None, "subscription": asked["endpoint"] or None}
    filters = Filters(since=SINCE.get(asked["since"]), limit=PAGE_ROWS, **given)
    if show == "waiting":
        outstanding = list_deliveries(connection, visit.tenant, filters, after=after)
        return [
            Row(id=one.id, type=one.type, named=_named(one), is_test=False, state=one.state, at=one.at,
                endpoint=urls.get(str(one.subscription_id), ""))
            for one in outstanding
        ], outstanding.next  # fmt: skip
    if show == "given_up":
        letters = list_dead_letters(connection, visit.tenant, filters, after=after)
        rows = [_given_up(visit, letter, urls.get(str(letter.subscription_id), "")) for letter in letters]
        return rows, letters.next
    filters = replace(filters, outcome=FAILED if show == "failed" else None)
    made = list_attempts(connection, visit.tenant, filters, after=after)
    dead = still_dead(connection, visit.tenant, [try_.delivery_id for try_ in made if try_.verdict == "dead"])
    return [
        Row(id=try_.delivery_id, type=try_.type, named=_named(try_), is_test=try_.verdict == "test",
            state=_state_of(try_, dead), at=try_.at, outcome=try_.outcome, status=try_.status,
            detail=detail_of(visit, try_.outcome, try_.error), endpoint=urls.get(str(try_.subscription_id), ""))
        for try_ in made
    ], made.next  # fmt: skip


def _state_of(try_: ListedAttempt, dead: Collection[DeliveryId]) -> str:
    """Return the verdict of an attempt; of a last one whose delivery is no dead letter any more that."""
    return "replayed_or_purged" if try_.verdict == "dead" and try_.delivery_id not in dead else try_.verdict


def _named(one: ListedAttempt | ListedDelivery | ListedDeadLetter) -> str:
    return one.key or str(one.event_id or "")


def _given_up(visit: Visit, letter: ListedDeadLetter, endpoint: str) -> Row:
    """Return the line of a dead letter; a reason that is no outcome is about our own relays or database."""
    outcome = letter.reason if letter.reason in OUTCOMES else "internal"
    return Row(
        id=letter.id, type=letter.type, named=_named(letter), is_test=False, state="dead", at=letter.died_at,
        outcome=outcome, detail=detail_of(visit, outcome, letter.error), endpoint=endpoint,
    )  # fmt: skip


def grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows as they are, but those of one failure as one group where they are many, at the newest's place."""
    alike: dict[object, list[Row]] = {}
    for place, row in enumerate(rows):
        is_failure = row.outcome is not None and row.state in ("retry", "dead")
        failure = (row.endpoint, row.type, row.state, row.outcome, row.status, row.detail)
        alike.setdefault(failure if is_failure else place, []).append(row)
    return [part for group in alike.values() for part in ([group] if len(group) >= MANY else [[one] for one in group])]


@router.get("/deliveries/{delivery_id}")
def delivery(visit: Looking, delivery_id: str) -> Response:
    """Show one delivery, its payload, and what came of each attempt."""
    with visit.transaction() as connection:
        item = show_delivery(connection, visit.tenant, delivery_id)
        endpoint = _endpoint_of(connection, visit, item) if item.subscription_id else ""
        payload = _payload_of(connection, visit, item)
        waits = _told_waits(connection, visit, item)
        again = sent_again_as(connection, visit.tenant, item) if item.state in _ENDED else None
    attempts = [(one, detail_of(visit, one.outcome, one.error)) for one in item.attempts_made]
    last = item.attempts_made.items[-1] if item.attempts_made.items else None
    advice = advice_for(visit, last.outcome, last.status, last.error) if last else ""
    can_replay = visit.visitor.may("operate") and item.state in _REPLAYABLE
    return page(
        visit, "portal_delivery.html", item=item, attempts=attempts, payload=payload, can_replay=can_replay,
        waits=waits, advice=advice, again=again, endpoint=endpoint,
    )  # fmt: skip


def _endpoint_of(connection: Connection, visit: Visit, item: DeliveryDetails) -> str:
    """Return what its endpoint is called, with the URL; '' where the endpoint is gone, or is none of the customer's."""
    try:
        found = verbs.get(connection, str(item.subscription_id), tenant=visit.visitor.whose)
    except NotFoundError:
        return ""
    return called_with_url(visit.request, found)


def _told_waits(connection: Connection, visit: Visit, item: DeliveryDetails) -> list[Waits]:
    """Return what it waits for, as far as a customer is told: its turn, where nothing else is; none if it is done."""
    kept = read_waits(connection, visit.tenant, [item.id])
    if not kept:
        return []
    told = [one for one in kept[0].waits if one.reason in TOLD_WAITS and one.reason != "turn"]
    return told or [Waits(reason="turn", detail="")]


def _payload_of(connection: Connection, visit: Visit, item: DeliveryDetails) -> str | None:
    try:
        if item.state == "dead":
            return show_dead_letter(connection, visit.tenant, item.id).payload
        return show_event(connection, visit.tenant, item.event_id).payload if item.event_id else None
    except NotFoundError:
        return None


@router.post("/deliveries/{delivery_id}/replay")
def replay_one(delivery_id: str, visit: Managing, _form: Posted) -> Response:
    """Send it once more, as a new delivery, and show that."""
    with visit.transaction() as connection:
        show_delivery(connection, visit.tenant, delivery_id)
        try:
            found = candidates_by_id(connection, visit.tenant, delivery_id)
            made = replay(connection, visit.tenant, found, AskedReplay([delivery_id]))
        except ReplayError:
            raise PortalRefused(409, "replay_refused") from None
    where = ("deliveries", made[0]) if made else ("deliveries",)
    return go(visit.request, *where, done="replayed", n=len(made) or len(found))
