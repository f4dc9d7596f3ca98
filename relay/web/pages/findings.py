"""What a person should look at, with what mends it; and the switch of all sending. For the operator only."""

from typing import Annotated

from fastapi import APIRouter, Response

from relay.operations.sending_switch import pause_all, read_sending, resume_all
from relay.web.pages.confirming import Reason, confirm
from relay.web.pages.csrf import Posted
from relay.web.pages.kept_status import kept_status
from relay.web.pages.rendering import go, url_of, visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visit, Visiting, visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
Operating = Annotated[Visit, visiting("read", "operate")]


@router.get("/findings")
def findings(visit: Visiting) -> Response:
    """Show all that status finds, who runs, and how everything stands."""
    with visit.transaction() as connection:
        found = kept_status(visit.request, connection, visit.tenant)
    return visit_page(visit, "findings.html", status_=found)


@router.post("/findings/sending")
def switch_sending(form: Posted, visit: Operating) -> Response:
    """Pause or resume all sending."""
    pausing = form.get("to") == "paused"
    if pausing and not form.has("confirmed"):
        with visit.transaction() as connection:
            read_sending(connection, visit.tenant)  # refuses a tenant before it is asked
        return confirm(
            visit, "Pause all sending?", "No relay on any host sends anything until you resume it. Events are recorded "
            "and resolved as ever; nothing is lost.", "Pause all sending", url_of(visit.request, "findings/sending"),
            form, back="findings", danger=True, reason=Reason("Why, for everybody who looks. May stay empty."),
        )  # fmt: skip
    with visit.transaction() as connection:
        if pausing:
            pause_all(connection, visit.tenant, form.get("reason").strip() or None)
        else:
            resume_all(connection, visit.tenant)
    return go(visit.request, "findings", done="sending-paused" if pausing else "sending-resumed")
