"""Forms that were posted, and the check that a page of ours sent them.

Each form carries a token that belongs to the visitor's cookie. A post without it, or from another site, is refused
before anything is done.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request

from relay.web.pages.visits import SESSION_COOKIE, Refused, cookie_name

__all__ = ["FORM_COOKIE", "Form", "Posted", "csrf_token_of", "form_secret_of", "is_from_here", "new_form_secret",
           "posting"]  # fmt: skip

FORM_COOKIE = "relay_form"
_MAX_FORM_BYTES = 1024 * 1024
_MAX_FORM_FIELDS = 2_000


class Form:
    """The fields of a form that was posted, in order; a field may be there several times."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a field."""
        return next((value for key, value in self._fields if key == name), default)

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return [value for key, value in self._fields if key == name]

    def has(self, name: str) -> bool:
        """Tell whether a field is there."""
        return any(key == name for key, _ in self._fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)


def csrf_token_of(secret: str) -> str:
    """Return what the forms of whoever holds this cookie carry."""
    return hmac.new(secret.encode(), b"outbox-relay form", hashlib.sha256).hexdigest()


def posting(secret_of: Callable[[Request], str]) -> object:
    """Return the dependency that gives a form which belongs to the cookie that `secret_of` reads.

    Raises Refused for a form of another site or visitor, and for what is none.
    """

    async def posted(request: Request) -> Form:
        return await _posted(request, secret_of(request))

    return Depends(posted)


async def _posted(request: Request, secret: str) -> Form:
    """Return the fields of a form, after the check that it is one of ours."""
    if not is_from_here(request):
        raise Refused(403, "form: it was sent by another site; open the page here and send it again")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise Refused(413, "form: is larger than 1 MiB; send less at once")
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FORM_FIELDS
        )
    except ValueError:
        raise Refused(400, "form: cannot be read; open the page again and send it from there") from None
    form = Form([(name, value.replace("\r\n", "\n")) for name, value in fields])
    if not secret or not hmac.compare_digest(csrf_token_of(secret).encode(), form.get("csrf").encode()):
        raise Refused(403, "form: it is too old, or not from this page; open the page again and send it from there")
    return form


def is_from_here(request: Request) -> bool:
    """Tell whether a page of ours, or no page, sent a request. A browser without https says its origin only."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def form_secret_of(request: Request) -> str:
    """Return the value of the cookie that a visitor's forms belong to, '' where there is none yet."""
    return (
        request.cookies.get(cookie_name(request, SESSION_COOKIE))
        or request.cookies.get(cookie_name(request, FORM_COOKIE))
        or ""
    )


Posted = Annotated[Form, posting(form_secret_of)]
"""The form that was posted, checked."""


def new_form_secret() -> str:
    """Return a new value of the cookie that forms belong to before somebody is signed in."""
    return secrets.token_urlsafe(24)
