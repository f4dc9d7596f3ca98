"""The signing secret of an endpoint: exchanged for a new one, which is shown once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from outbox import subscriptions as verbs
from outbox.control.times import utc
from outbox.errors import SubscriptionError
from outbox.signing.schemes import UNSIGNED
from relay.operations.live_secrets import live_secrets
from relay.web.portal.customers import Managing, PortalRefused, Posted
from relay.web.portal.rendering import PortalRoute, page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.operations.live_secrets import LiveSecret

__all__ = ["OVERLAPS", "old_until", "router"]

router = APIRouter(route_class=PortalRoute)
OVERLAPS = {"default": None, "none": 0, "hour": 3600, "week": 7 * 86_400}
"""How long old secrets sign along, in seconds; None is what suits the scheme."""


@router.get("/endpoints/{endpoint_id}/secret")
def secret_page(endpoint_id: str, visit: Managing) -> Response:
    """Ask how the secret is to be exchanged."""
    with visit.transaction() as connection:
        item = verbs.get(connection, endpoint_id, tenant=visit.visitor.whose)
    return page(visit, "portal_secret.html", item=item, made=None, is_new=False)


@router.post("/endpoints/{endpoint_id}/secret")
def rotate(endpoint_id: str, visit: Managing, form: Posted) -> Response:
    """Give it a new secret and show that, this once."""
    overlap = OVERLAPS.get(form.get("overlap"))
    with visit.transaction() as connection:
        item = verbs.get(connection, endpoint_id, tenant=visit.visitor.whose)
        if item.scheme == UNSIGNED:
            raise PortalRefused(409, "secret_none")
        try:
            made = verbs.rotate_secret(connection, item.id, tenant=visit.visitor.whose, overlap_seconds=overlap)
        except SubscriptionError:  # several are live, or this scheme has no overlap
            raise PortalRefused(409, "too_many_secrets") from None
        secrets = live_secrets(connection, visit.tenant, made.id)
    return page(visit, "portal_secret.html", item=made, made=made, is_new=False, until=old_until(secrets))


def old_until(secrets: Sequence[LiveSecret]) -> str:
    """Return until when an older secret signs along, in UTC; '' where none does."""
    ends = [one.expires_at for one in secrets if one.expires_at is not None]
    return utc(max(ends)).removesuffix("Z") if ends else ""
