"""Entering by a link, leaving, colours, and the files that pages of the portal load.

Whether a link may still be used is decided by outbox/control/portal_links.py.
"""

from fastapi import APIRouter, Request, Response

from outbox.control.portal_links import end_portal_session, open_portal_link, portal_link_of_session
from relay.web.portal.customers import (
    SESSION_COOKIE,
    THEME_COOKIE,
    Looking,
    PortalRefused,
    Posted,
    branding_for,
    forget_cookie,
    give_cookie,
    link_of_visit,
    secret_of,
)
from relay.web.portal.rendering import HOME, THEMES, PortalRoute, alone, go

__all__ = ["bare", "router"]

router = APIRouter(route_class=PortalRoute)
bare = APIRouter(route_class=PortalRoute)
_YEAR_SECONDS = 365 * 86_400
_KEPT = "public, max-age=31536000, immutable"


@bare.get(f"/{HOME}")
def home(request: Request) -> Response:
    """Lead to the first page."""
    return go(request)


@router.get("/open")
def enter(request: Request, link: str = "") -> Response:
    """Exchange a link for a session, once, and lead on without it; whoever looks ahead of a click opens nothing."""
    if getattr(request.state, "is_head", False) or _is_ahead(request):
        return alone(request, 403, "ended_title", "ended")
    with request.app.state.database.transaction("portal") as connection:
        if portal_link_of_session(connection, secret_of(request), begun_by=link) is not None:
            return go(request)  # read again, as a frame is
        made = open_portal_link(connection, link)
    if made is None:
        return alone(request, 403, "ended_title", "ended")
    opened, session = made
    request.state.caller = opened.id
    response = go(request)
    response.headers["location"] += "?begun=1"
    give_cookie(request, response, SESSION_COOKIE, session)
    return response


def _is_ahead(request: Request) -> bool:
    """Tell whether a browser only prepares for a click that may never come."""
    return "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", "")).lower()


@router.post("/sign-out")
def leave(visit: Looking, _form: Posted) -> Response:
    """End the session at once, on every process, and forget its cookie."""
    with visit.transaction() as connection:
        end_portal_session(connection, link_of_visit(visit))
    visit.request.state.visitor = None
    response = alone(visit.request, 200, "signed_out_title", "signed_out")
    forget_cookie(visit.request, response, SESSION_COOKIE)
    return response


@router.post("/theme")
def choose_theme(visit: Looking, form: Posted) -> Response:
    """Keep the colours that a customer chose."""
    response = go(visit.request)
    if form.get("theme") in THEMES:
        give_cookie(visit.request, response, THEME_COOKIE, form.get("theme"), _YEAR_SECONDS)
    return response


@router.get("/style.css")
def style(request: Request) -> Response:
    """Send the colours of the settings."""
    branding = branding_for(request)
    return _file(request, branding.style.encode(), "text/css; charset=utf-8", branding.style_version)


@router.get("/logo")
def logo(request: Request) -> Response:
    """Send the logo."""
    picture = branding_for(request).logo
    if picture is None:
        raise PortalRefused(404, "not_found")
    return _file(request, picture.content, picture.media_type, picture.version)


def _file(request: Request, content: bytes, media_type: str, version: str) -> Response:
    """Return a file, which may be kept for good where the address names this version of it."""
    kept = _KEPT if request.query_params.get("v") == version else "no-cache"
    headers = {**branding_for(request).headers, "Cache-Control": kept}
    return Response(content, media_type=media_type, headers=headers)
