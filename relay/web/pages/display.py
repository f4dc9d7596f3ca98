"""How values are written on a page: everything is text, and what no screen shows is written out.

Jinja escapes what a template prints. Before that `finalize` writes out control and format characters (NUL, marks that
turn the direction of writing), which could hide or disguise text. A page never holds markup that came from data.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from outbox.control.times import duration, rfc3339
from outbox.subscriptions.filters.values import in_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "ago",
    "as_json",
    "bounded",
    "field",
    "finalize",
    "header_lines",
    "indented",
    "lines",
    "moment",
    "moment_of_text",
    "plain",
    "seconds",
    "whole",
]

MAX_SHOWN = 20_000
"""Characters of a payload, header block or excerpt that a page shows."""
_MAX_INDENTED = 100_000
_MAX_INDENTATION = 40  # levels: white space in front of very deep values would add up to megabytes


def plain(text: str, keep: str = "") -> str:
    """Return the text with every control and format character written out (\\x1b, \\u202e), but for those to keep."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else ascii(one)[1:-1] for one in text)


def finalize(value: Any) -> Any:
    """Return what a template prints of a value: nothing of None, a thousands separator in whole numbers."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return plain(str(value))


def lines(text: str | None) -> Markup:
    """Return text of several lines for a `pre`: line ends and tabs stay, the rest is written out and escaped."""
    return escape(plain((text or "").replace("\r\n", "\n"), keep="\n\t"))


def bounded(text: str | None) -> str:
    """Return the beginning of a long text, which a page has room for."""
    return (text or "")[:MAX_SHOWN]


def moment(value: datetime | None) -> Markup:
    """Return a time in UTC to the second as a `time` element; a dash of None."""
    if value is None:
        return Markup('<span class="muted">–</span>')
    at = value.astimezone(UTC)
    shown = f"{at:%Y-%m-%d %H:%M:%S}Z"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(rfc3339(value), rfc3339(value), shown)


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def moment_of_text(value: Any) -> Any:
    """Return a time, also one that is written as RFC 3339 has it, as `moment` does; anything else as it is."""
    if isinstance(value, datetime):
        return moment(value)
    return moment(datetime.fromisoformat(value)) if isinstance(value, str) and _RFC_3339.fullmatch(value) else value


def ago(value: datetime | None, now: datetime) -> str:
    """Return how long before or after `now` a time is."""
    if value is None:
        return ""
    distance = (now - value).total_seconds()
    if abs(distance) < 1:
        return "now"
    return f"{duration(distance)} ago" if distance > 0 else f"in {duration(-distance)}"


def seconds(value: float | None) -> str:
    """Return a length of time in words; a dash of None."""
    if value is None:
        return "–"
    if value <= 0:
        return "0 s"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return re.sub(r" 0[smh]$", "", duration(value))


def indented(text: str | None) -> str:
    """Return JSON text with line ends and indentation between its tokens, which stay as they are; else the text.

    Numbers, escapes and the order of keys are those of the text: it is not read and written again.
    """
    given = text or ""
    if len(given) > _MAX_INDENTED:
        return given
    try:
        json.loads(given)
    except (ValueError, RecursionError):
        return given
    return "".join(_indent(given))


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def _indent(text: str) -> Iterator[str]:
    """Yield the tokens of JSON text that is known to be valid, with what goes between them."""
    depth, before = 0, ""
    for token in _TOKEN.findall(text):
        if token in ("}", "]"):
            depth -= 1
        if (
            (before in ("{", "[") and token not in ("}", "]"))
            or before == ","
            or (token in ("}", "]") and before not in ("{", "["))
        ):
            yield f"\n{'  ' * min(depth, _MAX_INDENTATION)}"
        if before == ":":
            yield " "
        yield token
        if token in ("{", "["):
            depth += 1
        before = token


def whole(value: float | None) -> str:
    """Return a number without fractions; a dash of None."""
    return "–" if value is None else f"{value:,.0f}"


def field(value: Any) -> Markup:
    """Return what the field of a form holds: the text as it is, so that what is sent back is what was there."""
    text = "" if value is None else str(value)
    return escape(text.replace("\0", "\\u0000"))


def as_json(value: Any) -> str:
    """Return a filter, or another value of JSON, as indented text."""
    return json.dumps(in_json(value), ensure_ascii=False, indent=2)


def header_lines(pairs: Iterable[tuple[str, str]]) -> str:
    """Return headers as lines."""
    return "\n".join(f"{plain(name)}: {plain(value)}" for name, value in pairs)
