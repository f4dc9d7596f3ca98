"""Subscriptions by HTTP: who gets which events where."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from outbox import subscriptions as verbs
from outbox.control.pages import Page
from outbox.subscriptions import NewSubscription, Subscription
from outbox.subscriptions.rows import id_of
from relay.operations import subscription_versions
from relay.operations.status.breakers import Breaker, breaker_of, breakers_of
from relay.operations.status.documents import SubscriptionHealth
from relay.operations.status.late_subscriptions import subscription_health
from relay.web.answers import MOST_LISTED, IfMatch, answer, linked, listed, require_version, tag
from relay.web.api.fields import ChangedSettings, GivenSettings, PageQuery, TenantName, given_in, tenant_of
from relay.web.bodies import Body, ExactRoute
from relay.web.database import Call, Reading, Writing
from relay.web.idempotency import Asked
from relay.web.models import listing, model_of

__all__ = ["router"]

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"], route_class=ExactRoute)

State = Literal["active", "paused", "disabled", "removed"]
_Shown = model_of(Subscription, state=State)
_Made = model_of(NewSubscription, state=State, public_key=str)
_Listed = create_model("ListedSubscription", __base__=_Shown, breaker=(model_of(Breaker), ...))
_TAGGED: dict[int | str, Any] = {
    200: {"headers": {"ETag": {"schema": {"type": "string"}, "description": "Its version."}}}
}


class SubscriptionQuery(PageQuery):
    """A page of subscriptions."""

    tenant: TenantName | None = None
    state: State | None = Field(default=None, description="Only these; without it all but the removed ones.")
    type: str | None = Field(default=None, max_length=128, description="Only those that get events of this type.")


class AddSubscription(GivenSettings):  # type: ignore[misc,valid-type]
    """A subscription to be made."""

    url: str = Field(max_length=8000, description="Where to send, https://…")
    types: list[str] = Field(min_length=1, max_length=200, description="order.created, order.* or *.")
    tenant: TenantName | None = None
    id: str | None = Field(default=None, description="An own id, sub_… or a UUID.")
    secret: str | None = Field(
        default=None, max_length=4096, description="An own signing secret, as its scheme wants it."
    )
    scheme: str = Field(default="standard", max_length=64, description="How requests are signed: see /schemes.")
    key_type: Literal["hmac", "ed25519"] | None = None
    allow_weak_secret: bool = False


class PauseSubscription(Body):
    drop: bool = Field(default=False, description="What comes meanwhile is not kept for it.")


class DisableSubscription(Body):
    reason: str = Field(min_length=1, max_length=500)


class RotateSecret(Body):
    secret: str | None = Field(default=None, max_length=4096)
    scheme: str | None = Field(default=None, max_length=64)
    key_type: Literal["hmac", "ed25519"] | None = None
    overlap_seconds: int | None = Field(
        default=None, ge=0, le=2_592_000, description="How long the old secrets sign along."
    )


class Health(BaseModel):
    """What waits for a subscription, how its last attempt went, and its breaker."""

    model_config = ConfigDict(from_attributes=True)

    backlog: model_of(SubscriptionHealth)  # type: ignore[valid-type]
    breaker: model_of(Breaker)  # type: ignore[valid-type]


@router.post("", status_code=201, response_model=_Made)
def add_subscription(call: Writing, once: Asked, body: AddSubscription, request: Request) -> Response:
    """Subscribe a URL to events. The signing secret is in this answer and in no other."""

    def make() -> Response:
        settings = given_in(body, "tenant")
        made = verbs.add(call.connection, tenant=tenant_of(call.principal, body.tenant), **settings)
        headers = {"ETag": tag(_version(call, made)), "Location": f"{request.url.path}/{made.id}"}
        return answer(_Made, _document(made), 201, headers)

    return once.run(call, make)


@router.get("", response_model=listing(_Listed))
def list_subscriptions(
    call: Reading, request: Request, response: Response, query: Annotated[SubscriptionQuery, Query()]
) -> Any:
    """List subscriptions, oldest first."""
    if call.tenant is not None and query.tenant not in (None, call.tenant):
        return Page(())
    whose = call.whose if query.tenant is None else query.tenant
    found = verbs.list(
        call.connection,
        tenant=whose,
        state=query.state,
        type=query.type,
        after=query.after,
        limit=min(MOST_LISTED, query.limit + 1),
    )
    page = listed(found, query.limit, lambda item: item.id)
    breakers = breakers_of(call.connection, call.tenant, [item.id for item in page])
    items = tuple({**item.to_dict(), "breaker": breaker} for item, breaker in zip(page, breakers.values(), strict=True))
    return linked(request, response, Page(items, page.next))


@router.get("/{subscription_id}", response_model=_Listed, responses=_TAGGED)
def get_subscription(call: Reading, subscription_id: str, response: Response) -> Any:
    """Show one subscription and its breaker; never its secret."""
    found = verbs.get(call.connection, subscription_id, tenant=call.whose)
    response.headers["ETag"] = tag(_version(call, found))
    return {**found.to_dict(), "breaker": breaker_of(call.connection, call.tenant, found.id)}


@router.patch("/{subscription_id}", response_model=_Shown, responses=_TAGGED)
def change_subscription(
    call: Writing,
    subscription_id: str,
    body: ChangedSettings,  # type: ignore[valid-type]
    response: Response,
    if_match: IfMatch = None,
) -> Any:
    """Change the fields that are given; null puts a setting back to its default. Needs If-Match."""
    require_version(call, subscription_id, if_match, needed=True)
    changed = verbs.update(call.connection, subscription_id, tenant=call.whose, **given_in(body))
    return _changed(call, changed, response)


@router.delete("/{subscription_id}", response_model=_Shown)
def remove_subscription(call: Writing, subscription_id: str, if_match: IfMatch = None) -> Any:
    """End it for good: what it had still to get is cancelled, dead letters stay. Needs If-Match; `*` is any version."""
    require_version(call, subscription_id, if_match, needed=True)
    return _document(verbs.remove(call.connection, subscription_id, tenant=call.whose))


@router.post("/{subscription_id}/pause", response_model=_Shown, responses=_TAGGED)
def pause_subscription(
    call: Writing,
    subscription_id: str,
    response: Response,
    body: PauseSubscription | None = None,
    if_match: IfMatch = None,
) -> Any:
    """Stop sending until it is resumed; deliveries gather and wait, or with `drop` none are made."""
    require_version(call, subscription_id, if_match)
    drop = body is not None and body.drop
    return _changed(call, verbs.pause(call.connection, subscription_id, drop=drop, tenant=call.whose), response)


@router.post("/{subscription_id}/disable", response_model=_Shown, responses=_TAGGED)
def disable_subscription(
    call: Writing, subscription_id: str, body: DisableSubscription, response: Response, if_match: IfMatch = None
) -> Any:
    """Stop sending for a reason that everybody is shown, as after 410 Gone."""
    require_version(call, subscription_id, if_match)
    changed = verbs.disable(call.connection, subscription_id, reason=body.reason, tenant=call.whose)
    return _changed(call, changed, response)


@router.post("/{subscription_id}/resume", response_model=_Shown, responses=_TAGGED)
def resume_subscription(call: Writing, subscription_id: str, response: Response, if_match: IfMatch = None) -> Any:
    """Send again, beginning with what gathered, whether it was paused, disabled or held back."""
    require_version(call, subscription_id, if_match)
    return _changed(call, verbs.resume(call.connection, subscription_id, tenant=call.whose), response)


@router.post("/{subscription_id}/rotate-secret", response_model=_Made, responses=_TAGGED)
def rotate_secret(
    call: Writing, once: Asked, subscription_id: str, body: RotateSecret | None = None, if_match: IfMatch = None
) -> Response:
    """Give it a new signing secret, which is in this answer and in no other; the old ones sign along for a while."""

    def make() -> Response:
        require_version(call, subscription_id, if_match)
        given = given_in(body) if body else {}
        made = verbs.rotate_secret(call.connection, subscription_id, tenant=call.whose, **given)
        return answer(_Made, _document(made), 200, {"ETag": tag(_version(call, made))})

    return once.run(call, make)


@router.get("/{subscription_id}/health", response_model=Health)
def get_health(call: Reading, subscription_id: str) -> Any:
    """Show what waits for it, how its last attempt went, and its breaker."""
    found = id_of(call.connection, call.tenant, subscription_id)
    backlog = subscription_health(call.connection, call.tenant, found)
    return {"backlog": backlog, "breaker": breaker_of(call.connection, call.tenant, found)}


def _version(call: Call, item: Subscription) -> int:
    return subscription_versions.read_version(call.connection, call.tenant, item.id)


def _changed(call: Call, changed: Subscription, response: Response) -> dict[str, Any]:
    response.headers["ETag"] = tag(_version(call, changed))
    return _document(changed)


def _document(item: Subscription) -> dict[str, Any]:
    more = {"public_key": item.public_key} if isinstance(item, NewSubscription) else {}
    return item.to_dict() | more
