"""A call of the API as a value: what is asked, and how the answer is read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from outbox.errors import OutboxError
from outbox.recording.payload import RawJSON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ApiError", "ApiUnreachableError", "Call", "path_of", "problem_of"]

T = TypeVar("T")
Made = TypeVar("Made")


class ApiError(OutboxError):
    """The API refused a call. `status` is HTTP's, `code` a name that stays; `field` and `mend` may be None."""

    def __init__(self, status: int, document: Mapping[str, Any], retry_after: str | None = None) -> None:
        self.status = status
        self.code = str(document.get("type", "")).rpartition(":")[2]
        self.detail = str(document.get("detail", f"status {status}"))
        self.field: str | None = document.get("field")
        self.mend: str | None = document.get("mend")
        self.request_id: str | None = document.get("request_id")
        self.retry_after_seconds = int(retry_after) if retry_after and retry_after.isdecimal() else None
        super().__init__("; ".join(filter(None, (self.detail, self.mend))))


class ApiUnreachableError(OutboxError):
    """Nothing answered as the API does; nobody knows whether the call was done."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """What is asked. `read` makes the result of the answer's JSON and its headers, whose names are in lower case."""

    method: str
    path: str
    read: Callable[[Any, Mapping[str, str]], T] = field(repr=False)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def then(self, make: Callable[[T], Made]) -> Call[Made]:
        """Return the same call with another result, made of its own."""
        read = self.read
        values = {name: getattr(self, name) for name in ("method", "path", "query", "body", "headers")}
        return Call(read=lambda document, headers: make(read(document, headers)), **values)

    def after(self, cursor: str) -> Call[T]:
        """Return the call of the page that follows."""
        return replace(self, query={**self.query, "after": cursor})

    @property
    def content(self) -> bytes | None:
        """The body as JSON, members of RawJSON as they are written; None without one."""
        if not isinstance(self.body, dict):
            return None if self.body is None else _json(self.body).encode()
        return f"{{{', '.join(f'{_json(name)}: {_json(value)}' for name, value in self.body.items())}}}".encode()


def _json(value: Any) -> str:
    return value.text if isinstance(value, RawJSON) else json.dumps(value, ensure_ascii=False)


def path_of(template: str, *names: object) -> str:
    """Return a path with these names in place of its {}."""
    return template.format(*(quote(str(name), safe="") for name in names))


def problem_of(status: int, content: bytes, headers: Mapping[str, str]) -> OutboxError:
    """Return the error that an answer means which is no result."""
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict) or "detail" not in document:
        return ApiUnreachableError(f"api: something else answered, with status {status}; check the URL")
    return ApiError(status, document, headers.get("retry-after"))
