"""Make the ASGI application: the API and the pages. It can be mounted in another one, and needs no lifespan."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from outbox._version import __version__
from outbox.errors import NotFoundError
from relay.config.options import Config
from relay.operations.connection import Database
from relay.web import api, pages
from relay.web.database import KEPT_CONNECTIONS
from relay.web.problems import Problem, problem_response

__all__ = ["create_app"]


def create_app(config: Config) -> FastAPI:
    """Return the application. `app.state` has `config` and `database`, whose first use opens a connection."""
    app = FastAPI(
        title="outbox-relay", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json"
    )
    app.state.config = config
    app.state.database = Database(config, kept=KEPT_CONNECTIONS)
    app.add_exception_handler(Problem, problem_response)  # type: ignore[arg-type]
    app.add_exception_handler(NotFoundError, _not_found)  # type: ignore[arg-type]
    app.include_router(api.router)
    app.include_router(pages.router)
    return app


def _not_found(request: Request, error: NotFoundError) -> JSONResponse:
    return problem_response(request, Problem(404, "not-found", str(error)))
