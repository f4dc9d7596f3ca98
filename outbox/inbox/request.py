"""A request as the inbox takes it, whichever framework it came by: the raw body, and the headers as they came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from outbox._text import brief
from outbox.errors import ArgumentError

__all__ = ["MAX_BYTES", "Request", "check_max_bytes"]

MAX_BYTES = 1_048_576
"""How long a body may be, in bytes, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `body` is the raw bytes as they came, before anybody parsed them.

    path: without the query. headers: pairs of name and value; a mapping is taken too. too_large: the body was longer
    than allowed and was not read; it is refused with 413. size: of the body, in bytes, as far as it is known.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    too_large: bool = False
    size: int = -1

    def __post_init__(self) -> None:
        for name in ("method", "path"):
            if not isinstance(getattr(self, name), str):
                raise ArgumentError(f"{name}: must be a str, not {brief(getattr(self, name))}")
        object.__setattr__(self, "headers", pairs_of(self.headers))
        object.__setattr__(self, "body", raw(self.body))
        if self.size < 0:
            object.__setattr__(self, "size", len(self.body))

    def header(self, name: str) -> str | None:
        """Return the value of a header, whose name may be in any case; None where there is none or several differ."""
        values = {value for key, value in self.headers if key.lower() == name.lower()}
        return values.pop() if len(values) == 1 else None

    @classmethod
    def of(cls, request: Any, *, max_bytes: int = MAX_BYTES) -> Self:
        """Return the request of a framework: Django's or Flask's (Werkzeug's), or a WSGI environ.

        The body is read once, and the framework gives it again to whoever asks later. A body of more than `max_bytes`
        is not read to its end, and not taken (`too_large`). Starlette's and FastAPI's, and ASGI's, are read by
        `await outbox.inbox.read(request)`.

        Raises ArgumentError for anything else, and where somebody has read the body before and did not keep it.
        """
        from outbox.inbox import frameworks

        if isinstance(request, cls):
            return request
        return frameworks.of(cls, request, check_max_bytes(max_bytes))


def check_max_bytes(value: object) -> int:
    """Return a number of bytes. Raises ArgumentError."""
    if type(value) is not int or value < 1:
        raise ArgumentError(f"max_bytes: must be a whole number from 1 on, not {brief(value)}")
    return value


def raw(body: object) -> bytes:
    """Return the body's bytes. Raises ArgumentError for text and for parsed JSON, of which no signature verifies."""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise ArgumentError(
        f"body: pass the raw bytes of the request, not {_kind(body)}; what was parsed and written again has other"
        " bytes, and its signature fails"
    )


def pairs_of(headers: Any) -> tuple[tuple[str, str], ...]:
    """Return headers as pairs of text. Raises ArgumentError."""
    try:
        pairs: Iterable[Any] = headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else headers
        return tuple((_text(name), _text(value)) for name, value in pairs)
    except (TypeError, ValueError):
        raise ArgumentError("headers: pass a mapping or pairs of name and value, of text or bytes") from None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise TypeError


def _kind(value: object) -> str:
    return "text" if isinstance(value, str) else f"a {type(value).__name__}"
