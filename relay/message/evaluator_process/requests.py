"""What the process is asked, and how it answers: a letter, and what belongs to it.

Requests are marshalled by the relay, for the same Python. Answers are bytes or JSON text, since whoever could make the
process answer wrongly must get no further by that.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from relay.message.formats import Formatter
    from relay.model.event import EventParts

__all__ = [
    "FAILED",
    "MADE",
    "REFUSED",
    "UNKNOWN",
    "FiltersAsked",
    "FormatAsked",
    "TransformationAsked",
    "UnexpectedError",
    "content_of",
    "filters_request",
    "format_request",
    "transformation_request",
]

MADE, REFUSED, FAILED = b"+", b"-", b"!"
UNKNOWN = b"?"
"""The filters of this digest have to be told."""

TransformationAsked = tuple[Literal["transformation"], str, bytes, bytes, str, "str | None", int, bytes, "bytes | None"]

FormatAsked = tuple[
    Literal["format"], str, "dict[str, Any]", str, bytes, bytes, str, "str | None", int, bytes
]  # fmt: skip

FiltersAsked = tuple[Literal["filters"], bytes, "dict[bytes, str] | None", bytes, "str | None", bytes, "bytes | None"]


class UnexpectedError(Exception):
    """An error of our own in the process; the text says which and where, and holds nothing of the event."""


def transformation_request(expression: str, event: EventParts) -> bytes:
    """Return the request for what an expression makes of an event; the answer is the new data."""
    asked: TransformationAsked = (
        "transformation", expression, event.id, event.type, event.tenant, event.key, event.recorded_at, event.payload,
        event.metadata,
    )  # fmt: skip
    return marshal.dumps(asked)


def format_request(formatter: Formatter, event: EventParts) -> bytes:
    """Return the request for an event's body in a format; the answer is that, with a placeholder for its secret."""
    asked: FormatAsked = (
        "format", formatter.format.name, dict(formatter.settings), formatter.placeholder,
        event.id, event.type, event.tenant, event.key, event.recorded_at, event.payload,
    )  # fmt: skip
    return marshal.dumps(asked)


def filters_request(digest: bytes, texts: dict[bytes, str] | None, event: EventParts) -> bytes:
    """Return the request for what filters say of an event; the answer is JSON, pairs of a name in hex and an Answer.

    `texts`: the filters by their names; None where the process should know those of this digest.
    """
    asked: FiltersAsked = ("filters", digest, texts, event.type, event.key, event.payload, event.metadata)
    return marshal.dumps(asked)


def content_of(answer: bytes) -> tuple[bytes, bytes]:
    """Return whether it was MADE, REFUSED or UNKNOWN, and the result or the reason. Raises UnexpectedError."""
    kind, content = answer[:1], answer[1:]
    if kind not in (MADE, REFUSED, UNKNOWN):
        raise UnexpectedError(content.decode(errors="replace"))
    return kind, content
