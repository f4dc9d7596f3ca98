"""Pages as responses: templates with autoescape, and the headers of every page.

Nothing inline is allowed by the policy: no script, no style, no event handler. Nothing may frame a page, and nothing
keeps it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from relay.web.pages import charts, display
from relay.web.pages.csrf import FORM_COOKIE, csrf_token_of, form_secret_of, new_form_secret
from relay.web.pages.kept_status import read_anew
from relay.web.pages.visits import Visit, Visitor, cookie_name, is_https
from relay.web.pages.wording import (
    NOTICES,
    NOTICES_OF_ONE,
    PART_WORDS,
    choices,
    is_command,
    kind_of,
    link_of_action,
    path_parts_of,
    sentence,
)

__all__ = ["ASSETS", "HEADERS", "Location", "Preferences", "addresses_of", "asset_version", "back_of", "filled", "go",
           "link_of", "preferences_of", "render", "url_of"]  # fmt: skip

HERE = Path(__file__).parent
ASSETS = HERE / "assets"
_TEMPLATES = (HERE / "templates", HERE.parent / "portal" / "templates")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self';"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Cache-Control": "no-store",
}
PREFERENCES_COOKIE = "relay_preferences"


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a visitor chose: colours (system, light, dark), whether pages renew themselves, whether keys do anything."""

    theme: str = "system"
    live: bool = True
    keys: bool = True

    @property
    def text(self) -> str:
        """The value of the cookie."""
        return f"{self.theme}.{int(self.live)}.{int(self.keys)}"


@dataclass(frozen=True, slots=True)
class Location:
    """A page of the navigation: its path, its name, and the key that goes there after g."""

    path: str
    name: str
    key: str
    operator_only: bool = False
    right: str = "read"


NAVIGATION = (
    Location("", "Overview", "o"),
    Location("findings", "Findings", "f", operator_only=True),
    Location("subscriptions", "Subscriptions", "s"),
    Location("events", "Events", "e"),
    Location("types", "Event types", "y"),
    Location("deliveries", "Deliveries", "d"),
    Location("attempts", "Attempts", "r"),
    Location("dead-letters", "Dead letters", "l"),
    Location("bulk", "Bulk operations", "b"),
    Location("audit", "Audit", "a"),
    Location("tokens", "Tokens", "t", right="admin"),
)


def preferences_of(request: Request) -> Preferences:
    """Return what the visitor's cookie says; what cannot be read is the default."""
    parts = request.cookies.get(PREFERENCES_COOKIE, "").split(".")
    if len(parts) != 3 or parts[0] not in ("system", "light", "dark"):
        return Preferences()
    return Preferences(parts[0], parts[1] != "0", parts[2] != "0")


def url_of(request: Request, *parts: object) -> str:
    """Return the address of a page below where the application is mounted; each part is one step, or an own path."""
    steps = [quote(str(part), safe="/" if place == 0 else "") for place, part in enumerate(parts) if str(part)]
    return "/".join([str(request.scope.get("root_path", "")).rstrip("/"), *steps]) or "/"


def link_of(request: Request, path: str, **query: object) -> str:
    """Return the address of a page with a query; what is empty is left out."""
    given = {name: str(value) for name, value in query.items() if value not in (None, "", False)}
    address = url_of(request, path) if path else url_of(request) + ("" if url_of(request).endswith("/") else "/")
    return f"{address}?{urlencode(given)}" if given else address


@cache
def asset_version(name: str) -> str:
    """Return a short hash of an asset, so that a browser may keep it for good."""
    return sha256((ASSETS / name).read_bytes()).hexdigest()[:12]


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=display.finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "moment": display.moment, "lines": display.lines, "bounded": display.bounded, "seconds": display.seconds,
        "indented": display.indented, "whole": display.whole, "field": display.field, "sentence": sentence,
        "json": display.as_json, "moment_of_text": display.moment_of_text,
    }  # fmt: skip
    made.globals |= {
        "kind_of": kind_of, "deliveries_chart": charts.deliveries_chart, "latency_chart": charts.latency_chart,
        "wide": charts.WIDE, "narrow": charts.NARROW, "most_shown": display.MAX_SHOWN, "choices": choices,
        "header_lines": display.header_lines, "since_choices": [("", "any time"), ("1h", "the last hour"),
        ("24h", "the last day"), ("7d", "the last 7 days"), ("30d", "the last 30 days")],
        "link_of_action": link_of_action, "is_command": is_command,
    }  # fmt: skip
    return made


def render(
    request: Request,
    template: str,
    visitor: Visitor | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """Return a page. `problem` among the context is said above its content."""
    secret = form_secret_of(request)
    fresh = "" if secret else new_form_secret()
    now = datetime.now(UTC)
    common = addresses_of(request) | {
        "visitor": visitor,
        "preferences": preferences_of(request),
        "navigation": [item for item in NAVIGATION if visitor and _is_for(item, visitor)],
        "here": _here(request),
        "back": back_of(request),
        "base": str(request.scope.get("root_path", "")).rstrip("/"),
        "csrf_token": csrf_token_of(secret or fresh),
        "notice": _notice(request),
        "problem": None,
        "words": PART_WORDS,
        "now": now,
        "ago": lambda value: display.ago(value, now),
        "path_of": lambda subject: _path_of(request, subject),
        "linked": lambda words: _linked(request, words),
    }
    response = filled(template, common | context, status, {**HEADERS, **(headers or {})})
    if fresh:
        response.set_cookie(
            cookie_name(request, FORM_COOKIE), fresh, httponly=True, samesite="strict", secure=is_https(request)
        )
    return response


def addresses_of(request: Request) -> dict[str, Any]:
    """Return the functions by which a template writes addresses: of a page, of one with a query, of an asset."""
    return {
        "url": lambda *parts: url_of(request, *parts),
        "link": lambda path, **query: link_of(request, path, **query),
        "asset": lambda name: f"{url_of(request, 'assets', name)}?v={asset_version(name)}",
    }


def filled(template: str, context: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> HTMLResponse:
    """Return a template with this context as a response."""
    text = _environment().get_template(template).render(context)
    # What data cannot be written in UTF-8 would end the page in the middle of an answer.
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), status, dict(headers))


def _is_for(item: Location, visitor: Visitor) -> bool:
    return item.right in visitor.rights and not (item.operator_only and visitor.tenant is not None)


def _here(request: Request) -> str:
    path = request.url.path.removeprefix(str(request.scope.get("root_path", "")))
    return path.strip("/").partition("/")[0]


def back_of(request: Request) -> str:
    """Return the path and query of the page that is shown, for a form that leads back to it."""
    if request.method != "GET":
        return url_of(request, _here(request))
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _notice(request: Request) -> dict[str, str] | None:
    """Return what was just done, by a name in the address; never words from there."""
    count = request.query_params.get("n", "")
    found = (NOTICES_OF_ONE if count == "1" else NOTICES).get(request.query_params.get("done", ""))
    if found is None:
        return None
    number = f"{int(count):,}" if count.isascii() and count.isdigit() and len(count) < 12 else "Some"
    return {"kind": "good", "text": found.format(n=number)}


def _path_of(request: Request, subject: object) -> str:
    parts = path_parts_of(str(subject))
    return url_of(request, *parts) if parts else ""


_ID = re.compile(r"\b(?:sub|evt|dlv|bulk)_[0-9a-z]{26}\b")


def _linked(request: Request, words: str) -> Markup:
    """Return a sentence as text, each id in it a link to its page."""
    text, place, made = display.plain(words), 0, Markup("")
    for match in _ID.finditer(text):
        link = Markup('<a class="mono" href="{}">{}</a>').format(_path_of(request, match[0]), match[0])
        made, place = made + text[place : match.start()] + link, match.end()
    return made + text[place:]


def go(request: Request, *parts: object, done: str = "", n: int | None = None) -> RedirectResponse:
    """Return the answer to a post that was done: the browser gets the page anew, which says what was done."""
    read_anew(request)
    query = {name: value for name, value in (("done", done), ("n", n)) if value not in ("", None)}
    address = url_of(request, *parts)
    return RedirectResponse(f"{address}?{urlencode(query)}" if query else address, 303, HEADERS)


def visit_page(visit: Visit, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """Return a page for this visit."""
    return render(visit.request, template, visit.visitor, status=status, **context)
