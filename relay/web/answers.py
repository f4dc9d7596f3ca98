"""Answers: pages with a link to the next, versions as ETags, and bodies made by a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, TypeVar

from fastapi import Header, Request, Response
from pydantic import BaseModel, TypeAdapter

from outbox.control.pages import Page
from relay.operations import subscription_versions
from relay.web.database import Call
from relay.web.problems import Problem

__all__ = ["MOST_LISTED", "IfMatch", "answer", "linked", "linked_below", "listed", "require_version", "tag"]

T = TypeVar("T")
MOST_LISTED = 1000
"""What a verb of outbox.subscriptions lists at once."""

IfMatch = Annotated[str | None, Header(description="The ETag of what was read: only that is changed.", max_length=1000)]


def linked(request: Request, response: Response, page: Page[T]) -> Page[T]:
    """Return a page whose `next` is a link, and set the header Link too."""
    if page.next is None:
        return page
    url = request.url.include_query_params(after=page.next)
    link = f"{url.path}?{url.query}"
    response.headers["Link"] = f'<{link}>; rel="next"'
    return replace(page, next=link)


def listed(found: Sequence[T], limit: int, name_of: Callable[[T], str]) -> Page[T]:
    """Return the page of what a verb listed that takes the last one's name for the next page.

    It was asked for one more than `limit`. It gives MOST_LISTED at most: of so many, whether there are more is not
    known, and the next page may be empty.
    """
    goes_on = len(found) > limit or len(found) >= MOST_LISTED
    return Page(tuple(found[:limit]), name_of(found[:limit][-1]) if goes_on else None)


def linked_below(request: Request, page: Page[T], part: str) -> Page[T]:
    """Return the first page of a part of what is shown, with the link to where that part goes on."""
    if page.next is None:
        return page
    return replace(page, next=f"{request.url.path}/{part}?after={page.next}")


def tag(version: int) -> str:
    """Return the ETag of a version."""
    return f'"{version}"'


def require_version(call: Call, subscription_id: str, if_match: str | None, *, needed: bool = False) -> None:
    """Lock a subscription and compare its version with If-Match.

    Raises:
        NotFoundError: there is none.
        Problem: 428 where one is needed, 412 where it was changed since.
    """
    version = subscription_versions.lock_version(call.connection, call.tenant, subscription_id)
    if if_match is None:
        if needed:
            seen = "if-match: is missing, so a change by somebody else could be lost"
            raise Problem(428, "precondition-required", seen, mend="read it first, and send its ETag as If-Match")
        return
    given = [one.strip() for one in if_match.split(",")]
    if "*" not in given and tag(version) not in given:
        seen = "if-match: it was changed since it was read"
        mend = "read it again, and send its ETag as If-Match"
        raise Problem(412, "precondition-failed", seen, mend=mend, headers={"ETag": tag(version)})


@cache
def _adapter(model: type[BaseModel]) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def answer(
    model: type[BaseModel], value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response whose body is the value as this model has it."""
    adapter = _adapter(model)
    body = adapter.dump_json(adapter.validate_python(value, from_attributes=True))
    return Response(body, status, dict(headers or {}), "application/json")
