"""Pages of the portal as responses: its own frame, texts and headers on the dashboard's parts, and errors as pages."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse

from outbox.errors import (
    ByHandError,
    FilterError,
    NotFoundError,
    ProbeError,
    RecordError,
    ReplayError,
    SubscriptionError,
)
from relay.telemetry.redaction import redact
from relay.web.pages import display
from relay.web.pages.csrf import csrf_token_of
from relay.web.pages.rendering import addresses_of, filled, url_of
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Refused, Visit, cookie_name
from relay.web.portal.customers import (
    SESSION_COOKIE,
    THEME_COOKIE,
    PortalRefused,
    branding_for,
    give_cookie,
    secret_of,
)
from relay.web.portal.naming import called, described
from relay.web.problems import Problem, log_fields
from relay.web.signed_in import signed_in_of

__all__ = ["HOME", "NOTICES", "THEMES", "PortalRoute", "alone", "confirm", "go", "page"]

log = logging.getLogger("relay.web")
HOME = "portal"
THEMES = ("system", "light", "dark")
NOTICES = ("changed", "paused", "resumed", "removed", "replayed")
_NAVIGATION = (("", "nav_endpoints"), ("deliveries", "nav_deliveries"), ("types", "nav_types"))


def page(visit: Visit, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """Return a page for this visit. `problem` among the context is said above its content."""
    return _page(visit.request, template, status, {"visitor": visit.visitor, **context})


def alone(request: Request, status: int, title: str, text: str, **values: object) -> HTMLResponse:
    """Return a page that says one thing, by the keys of its texts; within the frame where a customer is known."""
    visitor = getattr(request.state, "visitor", None)
    context = {"visitor": visitor, "title": title, "text": text, "values": values}
    return _page(request, "portal_message.html", status, context)


def _page(request: Request, template: str, status: int, context: Mapping[str, Any]) -> HTMLResponse:
    branding, now = branding_for(request), datetime.now(UTC)
    theme = request.cookies.get(cookie_name(request, THEME_COOKIE), "")
    common = addresses_of(request) | {
        "t": branding.texts,
        "brand": branding,
        "navigation": _NAVIGATION,
        "themes": THEMES,
        "theme": theme if theme in THEMES else "system",
        "here": _here(request),
        "home": HOME,
        "words": branding.texts.group("charts"),
        "since_choices": [("", branding.texts("all_times")), *branding.texts.group("windows").items()],
        "csrf_token": csrf_token_of(secret_of(request)),
        "notice": _notice(request),
        "problem": None,
        "can_leave": signed_in_of(request) is None,
        "ago": lambda value: _ago(request, value, now),
        "called": lambda item: called(request, item),
        "described": lambda item: described(request, item),
    }
    return filled(template, common | dict(context), status, branding.headers)


def _here(request: Request) -> str:
    path = request.url.path.removeprefix(url_of(request, HOME)).strip("/").partition("/")[0]
    return "" if path == "endpoints" else path


def _ago(request: Request, value: datetime | None, now: datetime) -> str:
    if value is None:
        return ""
    texts, distance = branding_for(request).texts, (now - value).total_seconds()
    if abs(distance) < 1:
        return texts("now")
    return texts("ago" if distance > 0 else "ahead", time=display.seconds(abs(distance)))


def _notice(request: Request) -> str:
    """Return what was just done, by a name in the address; never words from there."""
    done, count = request.query_params.get("done", ""), request.query_params.get("n", "")
    if done not in NOTICES:
        return ""
    number = f"{int(count):,}" if count.isascii() and count.isdigit() and len(count) < 12 else "0"
    return branding_for(request).texts(f"notices.{done}", n=number)


def go(request: Request, *parts: object, done: str = "", n: int | None = None) -> RedirectResponse:
    """Return the answer to a post that was done: the browser gets a page of the portal, which says what was done."""
    query = {name: value for name, value in (("done", done), ("n", n)) if value not in ("", None)}
    address = url_of(request, HOME, *parts) if parts else url_of(request, HOME) + "/"
    headers = branding_for(request).headers
    return RedirectResponse(f"{address}?{urlencode(query)}" if query else address, 303, headers)


def confirm(visit: Visit, title: str, question: str, verb: str, fields: Mapping[str, str], *, back: str) -> Response:
    """Return the page that asks before something is done; what it sends comes to the same address, with `confirmed`.

    Args:
        visit: by whom.
        title: the question in a few words.
        question: what will happen.
        verb: on the button.
        fields: what is sent once more.
        back: the address of the page to go back to.
    """
    return page(visit, "portal_confirm.html", title=title, question=question, verb=verb, fields=fields, back=back)


class PortalRoute(PageRoute):
    """A route of the portal. Its errors say what a customer can use: nothing of the database, or of who runs it."""

    @staticmethod
    def signed_out(request: Request) -> Response:
        """Say that the session has ended, or where it has just begun, that the browser kept no cookie.

        Where an application around has signed the visitor in, a session has begun: lead on with its cookie.
        """
        if session := getattr(request.state, "begun", ""):
            address = request.url.remove_query_params("done").include_query_params(begun=int(time.time()))
            response = RedirectResponse(f"{address.path}?{address.query}", 303, branding_for(request).headers)
            give_cookie(request, response, SESSION_COOKIE, session)
            return response
        begun = "begun" in request.query_params
        title, text = ("cookies_title", "cookies") if begun else ("session_title", "session_ended")
        return alone(request, 401, title, text)

    @staticmethod
    def failed(request: Request, error: Exception) -> Response:
        """Return an error as a page."""
        status, title, text, values = _told(error)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            fields = log_fields(request)
            request_id = fields["request_id"] or "-"
            if not isinstance(error, Refused | Problem):  # which are in the log already
                log.error("request %s: %s", request_id, redact(str(error)), extra=fields)
            values = {"request_id": request_id}
        answer = alone(request, status, title, text, **values)
        if isinstance(error, PortalRefused) and error.wait_seconds is not None:
            answer.headers["Retry-After"] = str(error.wait_seconds)
        if isinstance(error, Problem):
            answer.headers.update(error.headers)
        return answer


def _told(error: Exception) -> tuple[int, str, str, Mapping[str, object]]:
    """Return status, title and text of an error."""
    if isinstance(error, PortalRefused):
        return error.status, _TITLES.get(error.status, "refused_title"), error.text, error.values
    if isinstance(error, NotFoundError | FilterError | RequestValidationError):
        return 404, "not_found_title", "not_found", {}
    if isinstance(error, SubscriptionError | ByHandError | ReplayError | ProbeError | RecordError):
        return 409, "refused_title", "refused", {}
    status = error.status if isinstance(error, Refused | Problem) else 500
    return (status, *_OF_STATUS.get(status, ("error_title", "error")), {})


_TITLES = {403: "forbidden_title", 404: "not_found_title", 429: "busy_title", 503: "busy_title"}
_OF_STATUS = {
    400: ("form_title", "form_old"),
    403: ("form_title", "form_old"),
    404: ("not_found_title", "not_found"),
    405: ("not_found_title", "not_found"),
    413: ("too_large_title", "too_large"),
    503: ("busy_title", "away"),
}
