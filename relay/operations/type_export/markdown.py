"""The catalogue as a page in Markdown, for a site of documentation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from outbox.event_types.parts import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outbox.event_types.declared_type import DeclaredType

__all__ = ["markdown_page"]


def markdown_page(types: Iterable[DeclaredType], title: str) -> str:
    """Return the page: each type with its description, a table of the parts of its data, and its example."""
    lines = [f"# {_text(title)}", ""]
    for one in types:
        lines += _section(one)
    return "\n".join(lines)


def _section(one: DeclaredType) -> Iterator[str]:
    yield from (f"## {one.type}", "", f"Version {one.version}.", "")
    if one.deprecated is not None:
        yield from (f"**Deprecated:** {_text(one.deprecated)}", "")
    if one.description:
        yield from (_text(one.description), "")
    if parts := parts_of(one.schema):
        yield from ("| field | type | always there | |", "|---|---|---|---|")
        for part in parts:
            always = "yes" if part.required else ""
            yield f"| {_code(part.place)} | {_cell(part.kind)} | {always} | {_cell(part.description)} |"
        yield ""
    elif one.schema is None:
        yield from ("Its data is any JSON.", "")
    if one.example is not None:
        yield from ("```json", json.dumps(json.loads(one.example), indent=2, ensure_ascii=False), "```", "")


def _text(value: str) -> str:
    """Return text as one that Markdown shows as it is written: no HTML, no heading or list by accident."""
    shown = value.replace("\\", "\\\\").replace("<", "&lt;")
    for mark in "`*_[]|":
        shown = shown.replace(mark, f"\\{mark}")
    return "\n".join(f"\\{line}" if line[:1] in ("#", "-", "+", ">", "=") else line for line in shown.splitlines())


def _cell(value: str) -> str:
    return " ".join(_text(value).split())


def _code(value: str) -> str:
    fence = "``" if "`" in value else "`"
    return f"{fence}{value.replace('|', chr(92) + '|')}{fence}"
