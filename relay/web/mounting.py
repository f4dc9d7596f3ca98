"""The portal, and the API where it is wanted, in an application of your own and under its own sign-in.

The application's dependency says on every request whose tenant this is. A session of the portal is begun for that
tenant and that person, and one of anybody else's is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from outbox.control.portal_links import PORTAL_RIGHTS, PortalRight
from outbox.errors import ArgumentError
from outbox.fastapi.owner import owner_of
from relay.operations.tokens import Right
from relay.web.api import PREFIX
from relay.web.pages.csrf import is_from_here
from relay.web.portal.rendering import HOME
from relay.web.signed_in import IN_SCOPE, SignedIn

__all__ = ["signed_in_router"]

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_SAFE = ("GET", "HEAD", "OPTIONS")
_KEPT = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "query_string",
    "headers",
    "client",
    "server",
    "extensions",
)


def signed_in_router(
    web: FastAPI, *, tenant: Callable[..., Any], portal_rights: PortalRight = "manage", api_rights: Iterable[Right] = ()
) -> APIRouter:
    """Return a router with `web`'s portal at `/portal` and API at `/api/v1`; include it with a prefix.

    Whoever `tenant` refuses gets your application's own answer. Nobody needs a link or a token. A browser comes to the
    portal with your cookies. A request that changes something, and that a page of another origin sent, is refused with
    403 unless it carries `Authorization: Bearer`: no page can make a browser send that by itself.

    Args:
        web: of `relay.web.app.create_app(config)`; its `state.database.close()` is yours to call at the end.
        tenant: your dependency: gives the tenant, or (tenant, person) with a person for the audit. Whatever says nobody
            in particular, such as None, is an error of the program.
        portal_rights: `manage`, or `read`, which only looks.
        api_rights: read, write, operate; without one there is no API.

    Raises ArgumentError.
    """
    passes, api = _checked(portal_rights, api_rights), frozenset(api_rights)
    router = APIRouter(include_in_schema=False)

    @router.api_route("", methods=["GET", "HEAD"])
    @router.api_route("/", methods=["GET", "HEAD"])
    async def redirect_to_portal(request: Request, given: Any = Depends(tenant)) -> Response:  # noqa: ARG001, B008 - FastAPI's way
        return RedirectResponse(f"{_below(request, '/')[0]}/{HOME}/", 303)

    @router.api_route("/{path:path}", methods=_METHODS)
    async def forward(request: Request, path: str, given: Any = Depends(tenant)) -> Response:  # noqa: B008
        if not path.startswith(passes) and path != HOME:
            raise HTTPException(404)
        if request.method not in _SAFE and not _has_bearer(request) and not is_from_here(request):
            raise HTTPException(403, "a page of another origin sent this")
        owner = owner_of(given)
        signed_in = SignedIn(tenant=owner.tenant, person=owner.person, portal_rights=portal_rights, api_rights=api)
        root, whole = _below(request, f"/{path}")
        own = {name: request.scope[name] for name in _KEPT if name in request.scope}
        return _Passed(web, {**own, "root_path": root, "path": whole, IN_SCOPE: signed_in})

    return router


def _checked(portal_rights: object, api_rights: Iterable[object]) -> tuple[str, ...]:
    """Return what paths may begin with. Raises ArgumentError."""
    if portal_rights not in PORTAL_RIGHTS:
        raise ArgumentError(f"portal_rights: must be one of {', '.join(PORTAL_RIGHTS)}")
    if isinstance(api_rights, str) or not set(api_rights) <= set(get_args(Right)) - {"admin"}:
        raise ArgumentError("api_rights: must be some of read, write, operate; what admin allows is yours alone")
    return (f"{HOME}/", "assets/", *([f"{PREFIX[1:]}/"] if api_rights else []))


def _has_bearer(request: Request) -> bool:
    """Tell whether a program sends a token. Of Basic and Negotiate a browser sends on its own what it knows."""
    return request.headers.get("authorization", "").lower().startswith("bearer ")


def _below(request: Request, path: str) -> tuple[str, str]:
    """Return where the router stands, with what a proxy in front of it cuts off, and the whole path of the request."""
    root = request.scope.get("root_path", "").rstrip("/")
    whole = request.scope["path"]
    own = whole[len(root) :] if whole.startswith(f"{root}/") else whole
    return f"{root}{own.removesuffix(path)}", f"{root}{own}"


class _Passed(Response):
    """The answer that another application gives to the request."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        super().__init__()
        self._app, self._scope = app, scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - it has its own
        """Let the other application answer."""
        await self._app(self._scope, receive, send)
        if self.background is not None:
            await self.background()
