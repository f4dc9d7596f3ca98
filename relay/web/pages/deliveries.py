"""Deliveries: the list, one as a timeline of its attempts, and what is done to one by hand."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from outbox.control.by_hand import cancel, outstanding_by_id, retry_now, waiting_by_id
from outbox.control.deliveries import STATES, DeliveryDetails, list_deliveries, show_delivery
from outbox.control.filters import FAILED, OUTCOMES
from outbox.control.pages import Page
from outbox.control.replay.replay import Asked as AskedReplay
from outbox.control.replay.replay import candidates_by_id, replay
from outbox.control.waits import Waits, count_behind, read_waits
from outbox.errors import OutboxError
from relay.operations.endpoint_tests.preview import preview
from relay.web.pages.confirming import confirm
from relay.web.pages.csrf import Posted
from relay.web.pages.filters import Asked, wrong_of
from relay.web.pages.rendering import go, url_of, visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visit, Visiting, visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
Operating = Annotated[Visit, visiting("read", "operate")]
_OUTSTANDING = ("due", "waiting", "parked", "leased", "held", "paused", "disabled")


@router.get("/deliveries")
def deliveries(visit: Visiting, request: Request) -> Response:
    """List outstanding deliveries, the longest due first; of the delivered or cancelled the newest."""
    asked = Asked.of(request, "state", "outcome", "text", "id")
    if asked.id:
        return go(request, "deliveries", asked.id)
    state = next((one for one in STATES if one == asked.state), None)
    problem, wrong = None, {}
    try:
        with visit.transaction() as connection:
            found = list_deliveries(connection, visit.tenant, asked.filters(), state, after=asked.cursor)
    except OutboxError as error:
        found, problem, wrong = Page(()), str(error), wrong_of(error)
    return visit_page(
        visit, "deliveries.html", found=found, asked=asked, states=STATES, outcomes=(FAILED, *OUTCOMES),
        problem=problem, wrong=wrong,
    )  # fmt: skip


@router.get("/deliveries/{delivery_id}")
def delivery(visit: Visiting, delivery_id: str) -> Response:
    """Show one delivery: what happened to it, attempt by attempt, and what comes next."""
    item, waits, behind = _shown(visit, delivery_id)
    return visit_page(
        visit, "delivery.html", item=item, waits=waits, behind=behind, can=_possible(item), request_=None, why_not=""
    )


@router.get("/deliveries/{delivery_id}/request")
async def delivery_request(visit: Visiting, delivery_id: str) -> Response:
    """Show the delivery with its request, made from its event and its subscription as they are now."""
    item, waits, behind = await to_thread.run_sync(_shown, visit, delivery_id)
    made, why_not = None, "its event or its subscription is gone"
    if item.event_id is not None and item.subscription_id is not None:
        try:
            made = await preview(visit.database, visit.tenant, item.subscription_id, item.event_id)
        except OutboxError as error:
            why_not = str(error)
    request = made.request if made else None
    return visit_page(visit, "delivery.html", item=item, waits=waits, behind=behind, can=_possible(item),
                      request_=request, made_headers=made.marked_headers if made else (),
                      why_not=(made.error or "") if made else why_not)  # fmt: skip


def _shown(visit: Visit, delivery_id: str) -> tuple[DeliveryDetails, tuple[Waits, ...], int]:
    """Return the delivery, all that it waits for, and how many wait behind it: nothing of one that is done."""
    with visit.transaction() as connection:
        item = show_delivery(connection, visit.tenant, delivery_id)
        kept = read_waits(connection, visit.tenant, [item.id])
        behind = count_behind(connection, visit.tenant, item.id) if kept else 0
    return item, kept[0].waits if kept else (), behind


def _possible(item: DeliveryDetails) -> frozenset[str]:
    """Return what can be done to it in its state."""
    if item.state in _OUTSTANDING:
        return frozenset({"cancel", "retry"} if item.state in ("waiting", "paused", "disabled") else {"cancel"})
    if item.state == "dead":
        return frozenset({"replay", "purge"})
    return frozenset({"replay"} if item.state in ("delivered", "cancelled") else ())


@router.post("/deliveries/{delivery_id}/retry")
def retry(delivery_id: str, _form: Posted, visit: Operating) -> Response:
    """Make it due now."""
    with visit.transaction() as connection:
        made = retry_now(connection, visit.tenant, waiting_by_id(connection, visit.tenant, [delivery_id]))
    return go(visit.request, "deliveries", delivery_id, done="retried", n=len(made.deliveries))


@router.post("/deliveries/{delivery_id}/cancel")
def cancel_one(delivery_id: str, form: Posted, visit: Operating) -> Response:
    """Cancel it for good, after a question."""
    with visit.transaction() as connection:
        chosen = outstanding_by_id(connection, visit.tenant, [delivery_id])
        behind = count_behind(connection, visit.tenant, delivery_id)
        if form.has("confirmed"):
            made = cancel(connection, visit.tenant, chosen)
            return go(visit.request, "deliveries", delivery_id, done="cancelled", n=len(made.deliveries))
    return confirm(
        visit, "Cancel this delivery?", f"{delivery_id} is not sent any more, and counted as cancelled.",
        "Cancel the delivery", url_of(visit.request, f"deliveries/{delivery_id}/cancel"), form,
        back=f"deliveries/{delivery_id}", warning="A request that is on its way may still arrive. "
        f"Replay sends it after all.{_freed(behind)}", danger=True,
    )  # fmt: skip


def _freed(behind: int) -> str:
    """Say how many of the same key may go once it is cancelled."""
    if not behind:
        return ""
    number = "1 that waits" if behind == 1 else "over 1,000 that wait" if behind > 1000 else f"{behind:,} that wait"
    return f" {number} behind it, of the same key, may go then."


@router.post("/deliveries/{delivery_id}/replay")
def replay_one(delivery_id: str, _form: Posted, visit: Operating) -> Response:
    """Deliver it once more, as a new delivery, and show that."""
    with visit.transaction() as connection:
        found = candidates_by_id(connection, visit.tenant, delivery_id)
        made = replay(connection, visit.tenant, found, AskedReplay([delivery_id]))
    where = ("deliveries", made[0]) if made else ("dead-letters",)
    return go(visit.request, *where, done="replayed", n=len(made) or len(found))
