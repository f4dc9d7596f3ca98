"""Who visits the portal: a tenant's customer, by the cookie of the session that a link began.

Each form carries a token of that cookie. The cookie is for this host and out of reach of scripts. Where other pages may
show the portal in an iframe it is partitioned: a browser keeps one for each of those pages, and sends it nowhere else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request, Response

from outbox.control.portal_links import SESSION_SECONDS, begin_portal_session, portal_link_of_session
from outbox.errors import OutboxError
from relay.web.pages.csrf import Form, posting
from relay.web.pages.visits import SignInWanted, Visit, Visitor, cookie_name, is_https
from relay.web.signed_in import signed_in_of

if TYPE_CHECKING:
    from uuid import UUID

    from outbox.control.portal_links import PortalLink
    from relay.web.portal.branding import Branding
    from relay.web.signed_in import SignedIn

__all__ = ["SESSION_COOKIE", "THEME_COOKIE", "Looking", "Managing", "PortalRefused", "Posted", "branding_for",
           "forget_cookie", "give_cookie", "link_of_visit", "looking", "managing", "secret_of"]  # fmt: skip

SESSION_COOKIE = "relay_portal"
THEME_COOKIE = "relay_portal_theme"
_COOKIE_COMES_WITHIN_SECONDS = 60


class PortalRefused(OutboxError):  # noqa: N818 - an answer
    """A request is refused with this status; `text` is the key of the text that says why.

    `wait_seconds`: when to come back, None where that would not help.
    """

    def __init__(self, status: int, text: str, *, wait_seconds: int | None = None, **values: object) -> None:
        super().__init__(text)
        self.wait_seconds = wait_seconds
        self.status = status
        self.text = text
        self.values = values


def branding_for(request: Request) -> Branding:
    """Return how the portal looks."""
    found: Branding = request.app.state.portal
    return found


def secret_of(request: Request) -> str:
    """Return the session's secret, '' without one."""
    return request.cookies.get(cookie_name(request, SESSION_COOKIE), "")


def _visit(request: Request) -> Visit:
    with request.app.state.database.transaction() as connection:
        link = portal_link_of_session(connection, secret_of(request)) if secret_of(request) else None
    signed_in = signed_in_of(request)
    if link is None or not (signed_in is None or signed_in.began(link)):
        if signed_in is not None and _may_begin(request):
            _begin(request, signed_in)
        raise SignInWanted
    request.state.caller = link.id
    _limit(request, link.id)
    manages = link.rights == "manage"
    visitor = Visitor(
        name=link.person or "",
        actor=f"portal:{link.person or link.id}",
        tenant=link.tenant,
        rights=frozenset(("read", "write", "operate") if manages else ("read",)),
        session=None,
    )
    request.state.portal_link = link
    request.state.visitor = visitor
    return Visit(request, visitor)


def _may_begin(request: Request) -> bool:
    """Tell whether this visit may begin a session: a look ahead by HEAD may not, nor a form."""
    is_head = getattr(request.state, "is_head", False)  # EveryRequest makes it a GET
    return request.method == "GET" and not is_head and not _lacks_cookies(request)


def _begin(request: Request, signed_in: SignedIn) -> None:
    """Begin the session of whom the application around has signed in; the route's answer gives its cookie."""
    request.state.caller = signed_in.caller_id
    _limit(request, signed_in.caller_id)
    with request.app.state.database.transaction(f"application:{signed_in.name}") as connection:
        request.state.begun = begin_portal_session(
            connection, signed_in.tenant, rights=signed_in.portal_rights, person=signed_in.person
        )


def _limit(request: Request, whose: UUID) -> None:
    allowance = request.app.state.rate_limits.take(whose)
    if not allowance.granted:
        raise PortalRefused(429, "busy", wait_seconds=allowance.wait_seconds)


def _lacks_cookies(request: Request) -> bool:
    """Tell whether the browser has kept no cookie: a session began a moment ago, and it is not here."""
    begun = request.query_params.get("begun", "")
    return begun.isdecimal() and abs(time.time() - int(begun[:12])) < _COOKIE_COMES_WITHIN_SECONDS


def looking(request: Request) -> Visit:
    """Return the visit of a customer. Raises SignInWanted where the session has ended."""
    return _visit(request)


def managing(request: Request) -> Visit:
    """Return the visit of a customer who may change things. Raises SignInWanted, and PortalRefused where not."""
    visit = _visit(request)
    if not visit.visitor.may("write"):
        raise PortalRefused(403, "forbidden")
    return visit


Looking = Annotated[Visit, Depends(looking)]
Managing = Annotated[Visit, Depends(managing)]
Posted = Annotated[Form, posting(secret_of)]
"""The form that was posted, checked to be of this session."""


def link_of_visit(visit: Visit) -> PortalLink:
    """Return the link that began the session."""
    found: PortalLink = visit.request.state.portal_link
    return found


def give_cookie(request: Request, response: Response, name: str, value: str, seconds: int = SESSION_SECONDS) -> None:
    """Let the browser keep a value for so many seconds."""
    embedded = branding_for(request).is_embeddable and is_https(request)
    response.set_cookie(
        cookie_name(request, name), value, max_age=seconds, httponly=True, secure=is_https(request),
        samesite="none" if embedded else "lax",  # strict would be left out when the application leads here
    )  # fmt: skip
    if embedded:
        written, given = response.raw_headers.pop()
        response.raw_headers.append((written, given + b"; Partitioned"))


def forget_cookie(request: Request, response: Response, name: str) -> None:
    """Let the browser forget a value."""
    give_cookie(request, response, name, "", 0)
