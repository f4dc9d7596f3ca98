"""Words for people from an event, cut to what their receiver takes. No data acts as markup, mention or link."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from outbox.formats.template import split_template
from relay.message.body import time_of
from relay.message.formats.json_text import MAX_SHOWN, leaves, parse, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.model.event import EventParts

__all__ = ["cut", "data_lines", "fill", "parsed_up_to", "when"]

ELLIPSIS = "…"
NOTHING = "-"
MAX_PARSED_BYTES = 64 * 1024
"""Of larger data the beginning is shown as it stands: the event loop is not held for what nobody reads."""

MAX_LINES = 60


def data_lines(event: EventParts) -> str:
    """Return the data as lines `customer.name: Zoë`, as far as somebody may read."""
    if len(event.payload) > MAX_PARSED_BYTES:
        return shown(event.payload[:MAX_SHOWN].decode("utf-8", "ignore"))
    lines: list[str] = []
    size = 0
    for name, value in leaves(parse(event.payload), "", "."):
        lines.append(f"{shown(name)}: {shown(value)}" if name else shown(value))
        size += len(lines[-1])
        if len(lines) >= MAX_LINES or size > MAX_SHOWN:
            lines.append(ELLIPSIS)
            break
    return "\n".join(lines) if "".join(lines).strip() else NOTHING


def parsed_up_to(template: str | None) -> int:
    """Return up to which size `fill`, or `data_lines` without a template, parses the data of an event."""
    parts = ["data"] if template is None else split_template(template)[1::2]
    if any(part.startswith("data.") for part in parts):
        return sys.maxsize
    return MAX_PARSED_BYTES if "data" in parts else 0


def fill(template: str, event: EventParts, escape: Callable[[str], str], limit: int) -> str:
    """Return the text with each part filled in and escaped; `-` where the event has none.

    A part is cut above `limit` characters, at which the whole is cut in any case: to escape the rest would be in vain.
    """
    pieces = split_template(template)
    parsed = parse(event.payload) if any(part.startswith("data.") for part in pieces[1::2]) else None
    texts = [_part(part, event, parsed) for part in pieces[1::2]]
    if not "".join([*texts, *pieces[::2]]).strip():
        return NOTHING
    pieces[1::2] = [escape(text[: limit + 1]) for text in texts]
    return "".join(pieces)


def _part(part: str, event: EventParts, parsed: Any) -> str:
    if part == "data":
        return data_lines(event)
    if part.startswith("data."):
        text = shown(_at(parsed, part.split(".")[1:]))
    else:
        values = {"type": event.type.decode(), "id": event.id.decode(), "key": event.key, "tenant": event.tenant}
        text = when(event) if part == "time" else shown(values[part] or "")
    return text if text.strip() else NOTHING


def _at(value: Any, path: list[str]) -> Any:
    """Return what the path leads to, '' where it leads to nothing; a number is a place in a list."""
    for name in path:
        if isinstance(value, dict):
            value = value.get(name, "")
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name[:9]) < len(value):
            value = value[int(name[:9])]
        else:
            return ""
    return value


def when(event: EventParts) -> str:
    """Return when the event was recorded."""
    return time_of(event, fraction=False).decode()


def cut(text: str, limit: int, measure: Callable[[str], int] = len) -> str:
    """Return the text where it measures at most `limit`, else as many whole characters as fit, and an ellipsis."""
    if measure(text) <= limit:
        return text
    fits, too_many = 0, min(len(text), limit + 1)  # no measure counts a character as less than one
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if measure(text[:middle] + ELLIPSIS) <= limit else (fits, middle)
    return text[:fits] + ELLIPSIS
