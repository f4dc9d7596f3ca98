"""Make a call of its method, path and body, and of the type that its answer is read as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from relay.client.call import Call, path_of
from relay.client.reading import read_as, read_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outbox.control.pages import Page

__all__ = ["chosen", "get_one", "get_page", "mapping", "not_none", "send"]

T = TypeVar("T")


def get_one(kind: type[T], path: str, *names: object, **query: Any) -> Call[T]:
    """Return the call that reads one document."""
    return Call(method="GET", path=path_of(path, *names), query=query, read=lambda found, _: read_as(kind, found))


def get_page(kind: type[T], path: str, *names: object, **query: Any) -> Call[Page[T]]:
    """Return the call that reads a page of a list."""
    return Call(method="GET", path=path_of(path, *names), query=query, read=lambda found, _: read_page(kind, found))


def send(
    kind: type[T], method: str, path: str, *names: object, body: Any = None, once: str | None = None,
    etag: str | None = None,
) -> Call[T]:  # fmt: skip
    """Return the call that changes something; `once` is its Idempotency-Key, `etag` the version that was read."""
    headers = {"Idempotency-Key": once, "If-Match": etag}
    return Call(
        method=method,
        path=path_of(path, *names),
        body=body,
        headers={name: value for name, value in headers.items() if value is not None},
        read=lambda found, _: read_as(kind, found),
    )


def not_none(**members: Any) -> dict[str, Any]:
    """Return the members that were given."""
    return {name: value for name, value in members.items() if value is not None}


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object of JSON as a mapping."""
    found: Mapping[str, Any] = value
    return found


def chosen(ids: Sequence[object] | None, filters: Mapping[str, Any] | None, *, dry_run: bool) -> dict[str, Any]:
    """Return the body that chooses rows by ids or by filters."""
    names = None if ids is None else [str(one) for one in ids]
    return not_none(ids=names, filter=filters and not_none(**filters), dry_run=dry_run)
