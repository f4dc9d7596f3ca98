"""Tokens: who may call the API and sign in here. One is shown once, when it is made."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Request, Response

from outbox.errors import SubscriptionError
from outbox.ids import TokenId
from relay.operations import tokens as operations
from relay.operations.sessions import is_session, maker_of
from relay.operations.tokens import RIGHTS, TokenError
from relay.web.pages.csrf import Form, Posted
from relay.web.pages.filters import Asked
from relay.web.pages.rendering import go, visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Refused, Visit, visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
Administering = Annotated[Visit, visiting("read", "admin")]
_DAYS = {"1": "a day", "30": "30 days", "90": "90 days", "365": "a year", "": "never"}
NEW = {"name": "", "days": "90", "tenant": "", "every_tenant": ""}
_MEANINGS = {
    "read": "look at everything",
    "write": "record events; add, change, pause, test and remove subscriptions",
    "operate": "retry, cancel, replay, purge; stop all sending",
    "admin": "tokens, and the limits of tenants",
}


@router.get("/tokens")
def tokens(request: Request, visit: Administering) -> Response:
    """List tokens, the newest first; sessions of this dashboard apart."""
    return _page(visit, Asked.of(request, "revoked"))


def _page(visit: Visit, asked: Asked, status: int = 200, **more: object) -> Response:
    with visit.transaction() as connection:
        found = operations.list_tokens(
            connection, visit.tenant, asked.filters(), revoked=bool(asked.revoked), after=asked.cursor
        )
    context = {"made": None, "problem": None, "texts": NEW, "rights": [], **more}
    return visit_page(
        visit, "tokens.html", status=status, found=found, asked=asked, days=list(_DAYS.items()), meanings=_MEANINGS,
        may_give=[right for right in RIGHTS if visit.visitor.may(right)], is_session=is_session, **context,
    )  # fmt: skip


@router.post("/tokens")
def create(request: Request, form: Posted, visit: Administering) -> Response:
    """Make a token and show it, this once."""
    asked = Asked.of(request, "revoked")
    try:
        with visit.transaction() as connection:
            made = operations.create(
                connection, visit.tenant, name=form.get("name").strip(), rights=form.all("right"),
                whose=_tenant_in(visit, form), expires=_expires(form.get("days")),
                maker=maker_of(connection, visit.visitor.session, visit.visitor.rights),
            )  # fmt: skip
    except (TokenError, SubscriptionError) as error:
        return _page(visit, asked, 422, problem=str(error), texts=NEW | dict(form), rights=form.all("right"))
    return _page(visit, asked, made=made)


def _tenant_in(visit: Visit, form: Form) -> str | None:
    if visit.tenant is not None:
        return visit.tenant
    return None if form.has("every_tenant") else form.get("tenant")


def _expires(days: str) -> timedelta | None:
    if days not in _DAYS:
        raise TokenError(f"days: {days[:20]!r} is none of {', '.join(filter(None, _DAYS))}")
    return timedelta(days=int(days)) if days else None


@router.post("/tokens/{token_id}/revoke")
def revoke(token_id: str, _form: Posted, visit: Administering) -> Response:
    """End a token at once."""
    if visit.visitor.session is not None and visit.visitor.session.id == TokenId.of(token_id):
        raise Refused(409, "token: this is your own session; sign out in its place")
    with visit.transaction() as connection:
        operations.revoke(connection, visit.tenant, token_id)
    return go(visit.request, "tokens", done="revoked")
