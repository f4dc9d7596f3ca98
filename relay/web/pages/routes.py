"""The routes of pages: their errors are pages too, and without a session they lead to the sign-in."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from outbox.errors import NotFoundError, OutboxError
from relay.telemetry.redaction import redact
from relay.web.admission import admitted
from relay.web.pages.rendering import HEADERS, back_of, render, url_of
from relay.web.pages.visits import Refused, SignInWanted, is_operator
from relay.web.problems import Problem, log_fields, of_database

__all__ = ["PageRoute"]

log = logging.getLogger("relay.web")


class PageRoute(APIRoute):
    """A route whose errors are pages: those of `signed_out` and `failed`."""

    @staticmethod
    def signed_out(request: Request) -> Response:
        """Answer whoever is not signed in."""
        return _to_sign_in(request)

    @staticmethod
    def failed(request: Request, error: Exception) -> Response:
        """Return an error as a page."""
        return _error_page(request, error)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler; an expected error becomes a page with its message."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                if request.method != "GET":
                    await request.body()
                async with admitted(request):
                    return await handler(request)
            except SignInWanted:
                return self.signed_out(request)
            except (OutboxError, Problem, RequestValidationError) as error:
                return self.failed(request, error)
            except HTTPException as error:
                return self.failed(request, Refused(error.status_code, error.detail))
            except Exception as error:
                told = _outage(request, error)
                if told is None:
                    fields = log_fields(request)
                    request_id = fields["request_id"] or "-"
                    log.error("request %s: %s", request_id, redact(repr(error)), exc_info=error, extra=fields)
                    told = Refused(500, f"An error of our own. The log has it, as {request_id}.")
                return self.failed(request, told)

        return answer


def _outage(request: Request, error: Exception) -> Exception | None:
    """Return what to tell where the database is away or cannot be used; None for an error of our own."""
    if not isinstance(error, SQLAlchemyError):
        return None
    problem = of_database(request, error, for_operator=is_operator(request))
    return problem if problem.status == 503 else None


def _to_sign_in(request: Request) -> Response:
    wants_page = "text/event-stream" not in request.headers.get("accept", "")
    if request.method != "GET" or request.headers.get("x-refresh") or not wants_page:
        return render(request, "error.html", status=401, title="You are signed out", again="",
                      message="The session has ended. Sign in, and do it once more.")  # fmt: skip
    there = back_of(request)
    home = url_of(request)
    address = url_of(request, "sign-in")
    return RedirectResponse(address if there in (home, home + "/") else f"{address}?{urlencode({'to': there})}", 303,
                            HEADERS)  # fmt: skip


_TITLES = {
    500: "This failed",
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    413: "Too large",
    503: "Not now",
}


def _error_page(request: Request, error: Exception) -> Response:
    status, message, headers = 409, str(error), {}
    if isinstance(error, NotFoundError):
        status = 404
    elif isinstance(error, Problem):
        status, headers = error.status, error.headers
        message = f"{error.detail}; {error.mend}" if error.mend else error.detail
    elif isinstance(error, Refused):
        status = error.status
    elif isinstance(error, RequestValidationError):
        status, message = 422, "The address has a value that this page cannot read."
    title = _TITLES.get(status, "This was not done")
    return render(
        request, "error.html", getattr(request.state, "visitor", None), status=status, headers=headers, title=title,
        message=message, again=back_of(request) if status == 503 else "",
    )  # fmt: skip
