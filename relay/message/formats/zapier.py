"""One flat object for Webhooks by Zapier: names of nested members are joined by two underscores, as Zapier does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.message.formats.json_text import compact, leaves, parse, quoted
from relay.message.formats.maker import FormatError
from relay.message.formats.wording import when
from relay.model.event import Body

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from relay.message.formats.maker import Family, Make
    from relay.model.event import EventParts

__all__ = ["FORMATS"]

_BODY_BYTES = 10 * 1024 * 1024
_MOST_CELLS = 10_000  # of a table made of a list of objects; a larger list is a list of JSON texts


def _make(event: EventParts) -> Body:
    members = {
        "id": compact(event.id.decode()),
        "type": compact(event.type.decode()),
        "timestamp": compact(when(event)),
    }
    size = 0
    for name, value in leaves(parse(event.payload), "data", "__"):
        for column, text in _columns(name, value):
            if column in members:
                raise FormatError("data: two members are one when flattened, such as a__b and b in a; rename one")
            members[column] = text
            size += len(column) + len(text)
            if size > _BODY_BYTES:
                raise FormatError(f"data: over {_BODY_BYTES} bytes when flattened; Zapier takes no more, record less")
    written = ",".join(f"{compact(name)}:{text}" for name, text in members.items())
    return Body(f"{{{written}}}".encode("utf-8", "replace"))


def _columns(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a leaf as JSON; a list of objects as one list for each of their names, which Zapier calls line items."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        names = list(dict.fromkeys(key for item in value for key in item))
        if names and len(names) * len(value) <= _MOST_CELLS:
            yield from ((f"{name}__{key}", _list([item.get(key) for item in value])) for key in names)
            return
    yield name, _list(value) if isinstance(value, list) else _cell(value)


def _list(items: list[Any]) -> str:
    return "[" + ",".join(map(_cell, items)) + "]"


def _cell(value: Any) -> str:
    """Return a plain value as it is, an object or list as its JSON text."""
    return quoted(compact(value)) if isinstance(value, dict | list) else compact(value)


def _zapier(_settings: Mapping[str, Any], _secret: str) -> Make:
    return _make


FORMATS: Mapping[str, Family] = {"zapier": _zapier}
