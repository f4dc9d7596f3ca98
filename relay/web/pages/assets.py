"""The files that pages load: style sheets, one script, one icon. Their address changes with what is in them."""

from fastapi import APIRouter, Request, Response

from relay.web.pages.rendering import ASSETS, HEADERS, asset_version
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Refused

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
_TYPES = {
    "relay.css": "text/css; charset=utf-8", "portal.css": "text/css; charset=utf-8",
    "relay.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
}  # fmt: skip


@router.get("/assets/{name}")
def asset(request: Request, name: str) -> Response:
    """Send one file; for good, if the address names this version of it."""
    if name not in _TYPES:
        raise Refused(404, "asset: there is none of this name")
    current = request.query_params.get("v") == asset_version(name)
    kept = "public, max-age=31536000, immutable" if current else "no-cache"
    return Response((ASSETS / name).read_bytes(), media_type=_TYPES[name], headers={**HEADERS, "Cache-Control": kept})
