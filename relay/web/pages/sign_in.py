"""Signing in with a token, signing out, and what a visitor chooses for their own browser."""

from dataclasses import replace

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from relay.operations import sessions, tokens
from relay.operations.tokens import TokenError
from relay.web.pages.csrf import Posted
from relay.web.pages.rendering import (
    HEADERS,
    PREFERENCES_COOKIE,
    Preferences,
    go,
    preferences_of,
    render,
    url_of,
    visit_page,
)
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import SESSION_COOKIE, Visiting, cookie_name, is_https, visitor_of

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
_YEAR_SECONDS = 365 * 86_400


@router.get("/sign-in")
def sign_in_page(request: Request) -> Response:
    """Ask for a token; a link made for one time has it in its address and wants a click only."""
    if visitor_of(request) is not None and "once" not in request.query_params:
        return go(request)
    return _page(request, once=request.query_params.get("once", ""), to=_safe(request, request.query_params.get("to")))


@router.post("/sign-in")
def sign_in(request: Request, form: Posted) -> Response:
    """Begin a session; its cookie is for this host, for pages opened here, and out of reach of scripts."""
    given, to = form.get("token").strip(), _safe(request, form.get("to"))
    once = form.has("once")
    try:
        with request.app.state.database.transaction() as connection:
            shown = tokens.authenticate(connection, given)
            request.state.signs_in_operator = shown is not None and shown.tenant is None
            made = sessions.begin_session(connection, given, once=once)
    except TokenError:
        problem = "This token may not look at anything: it has no right read."
        return _page(request, to=to, problem=problem, status=403)
    if made is None:
        problem = "The token is unknown, expired or revoked. Make one with: relay tokens create NAME --rights read …"
        return _page(request, to=to, problem=problem, status=403)
    response = RedirectResponse(to or url_of(request), 303, HEADERS)
    response.set_cookie(
        cookie_name(request, SESSION_COOKIE), made.text, max_age=sessions.SESSION_SECONDS, httponly=True,
        samesite="strict", secure=is_https(request),
    )  # fmt: skip
    return response


@router.post("/sign-out")
def sign_out(visit: Visiting, __form: Posted) -> Response:
    """End the session at once, on every process, and forget its cookie."""
    if visit.visitor.session is not None:
        with visit.transaction() as connection:
            sessions.end_session(connection, visit.visitor.session)
    response = go(visit.request, "sign-in", done="signed-out")
    response.delete_cookie(
        cookie_name(visit.request, SESSION_COOKIE), httponly=True, samesite="strict", secure=is_https(visit.request)
    )
    return response


@router.get("/preferences")
def preferences_page(visit: Visiting) -> Response:
    """Show what can be chosen for this browser."""
    return visit_page(visit, "preferences.html")


@router.post("/preferences")
def choose(visit: Visiting, form: Posted) -> Response:
    """Keep a choice in a cookie, and go back to where it was made."""
    request, chosen = visit.request, preferences_of(visit.request)
    if form.get("theme") in ("system", "light", "dark"):
        chosen = replace(chosen, theme=form.get("theme"))
    if form.has("switches"):
        chosen = replace(chosen, live=form.has("live"), keys=form.has("keys"))
    back = _safe(request, form.get("back"))
    response = RedirectResponse(back, 303, HEADERS) if back else go(request, "preferences", done="preferences")
    _keep(request, response, chosen)
    return response


def _keep(request: Request, response: Response, chosen: Preferences) -> None:
    response.set_cookie(
        PREFERENCES_COOKIE, chosen.text, max_age=_YEAR_SECONDS, httponly=True, samesite="strict",
        secure=is_https(request),
    )  # fmt: skip


def _page(request: Request, *, once: str = "", to: str = "", problem: str | None = None, status: int = 200) -> Response:
    return render(request, "sign_in.html", status=status, once=once, to=to, problem=problem)


def _safe(request: Request, address: str | None) -> str:
    """Return an address to go to afterwards, if it is one of ours: a path, and no other host."""
    home = url_of(request).rstrip("/") + "/"
    given = address or ""
    is_ours = given.startswith(home) and not given.startswith("//") and "\\" not in given and given.isprintable()
    return given if is_ours else ""
