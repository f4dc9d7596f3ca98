"""Make the ASGI application: API, dashboard and portal. It can be mounted in another one, and needs no lifespan."""

from functools import partial

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import Scope

from outbox._version import __version__
from relay.config.options import Config
from relay.operations.connection import SCHEMA_SECONDS, Database
from relay.web import api, explorer, pages, portal
from relay.web.admission import KEPT_CONNECTIONS, Admission
from relay.web.api.description import describe
from relay.web.every_request import EveryRequest
from relay.web.pages.kept_status import KeptStatus
from relay.web.portal.branding import branding_of
from relay.web.problems import add_handlers
from relay.web.rate_limits import RateLimits

__all__ = ["create_app"]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def create_app(config: Config) -> FastAPI:
    """Return the application. `app.state` has `config` and `database`, whose first use opens a connection."""
    app = FastAPI(
        title="outbox-relay",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{api.PREFIX}/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.config = config
    app.state.database = Database(config, kept=KEPT_CONNECTIONS, check_again_seconds=SCHEMA_SECONDS)
    app.state.admission = Admission()
    app.state.rate_limits = RateLimits(config.requests_per_minute)
    app.state.portal = branding_of(config)
    app.state.kept_status = KeptStatus(app.state.database.transaction)
    app.state.methods_at = partial(_methods_at, app)
    app.openapi = partial(describe, app)  # type: ignore[method-assign]
    app.add_middleware(EveryRequest, methods_at=app.state.methods_at)
    add_handlers(app)
    app.include_router(api.router)
    app.include_router(explorer.router, prefix=api.PREFIX)
    app.include_router(portal.router)
    app.include_router(pages.router)
    return app


def _methods_at(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods that there are at the path of a request, [] where there is nothing."""
    found = [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"] if found else []
