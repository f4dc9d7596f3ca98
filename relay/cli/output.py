"""What commands print: tables that fit the terminal, plain lines when piped, JSON; no control characters.

Operations return values; here they become text. A document is a JSON object of its fields, a time is RFC 3339 in UTC,
an id is the text that people see.
"""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from outbox.control.pages import Page
from outbox.control.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from outbox.control.attempts import Attempt
    from outbox.control.events import Counts

__all__ = [
    "counted", "escape", "fields_of", "host_of", "metadata_lines", "print_attempts", "print_fields", "print_json",
    "print_json_lines", "print_more", "print_table",
]  # fmt: skip

_MIN_FLEXIBLE_WIDTH = 8


def escape(text: str) -> str:
    """Return the text with every control and format character written out (\\x1b, \\u202e, \\n)."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def print_json(value: Any) -> None:
    """Print one document as one indented object."""
    click.echo(json.dumps(value, default=_json_value, indent=2))


def print_json_lines(values: Iterable[Any]) -> None:
    """Print each document on a line of its own."""
    for value in values:
        click.echo(json.dumps(value, default=_json_value))


def fields_of(document: Any, *left_out: str) -> dict[str, Any]:
    """Return the fields of a document by name, in order, but for those left out."""
    return {field.name: getattr(document, field.name) for field in fields(document) if field.name not in left_out}


def print_more(page: Page[Any]) -> None:
    """Tell on stderr how to go on where the list does, and where a search stopped."""
    if page.searched_until is not None:
        until = f"searched until {rfc3339(page.searched_until)}, which is as far as one page looks"
        click.echo(f"{until}; the rest: --after {page.next}", err=True)
    elif page.next is not None:
        click.echo(f"there are more: --after {page.next}", err=True)


def print_attempts(attempts: Iterable[Attempt]) -> None:
    """Print attempts as a table under a heading; nothing when there are none."""
    rows = [
        (
            item.delivery_id,
            item.number,
            item.at,
            item.status or item.outcome,
            f"{item.milliseconds} ms",
            item.verdict if item.error is None else f"{item.verdict}: {item.error}",
        )
        for item in attempts
    ]
    if rows:
        click.echo("\nAttempts")
        print_table(["DELIVERY", "#", "AT UTC", "ANSWER", "TOOK", "RESULT"], rows, flexible=["RESULT"])


def counted(counts: Counts) -> str:
    """Say how many subscriptions are in which state; those of none are left out."""
    named = {"delivered": counts.delivered, "outstanding": counts.outstanding, "dead": counts.dead,
             "purged": counts.purged, "cancelled": counts.cancelled}  # fmt: skip
    said = [f"{count} {name}" for name, count in named.items() if count]
    if counts.cancelled is None and counts.matched:
        said.append("cancelled unknown")
    return ", ".join(said) or "-"


def host_of(url: str | None) -> str | None:
    """Return host and port of a URL: a narrow column has room for no more."""
    return url and url.partition("://")[2].partition("/")[0].partition("?")[0]


def print_fields(named: Mapping[str, Any]) -> None:
    """Print names and values, one a line, the values aligned."""
    width = max(len(name) for name in named) + 2
    for name, value in named.items():
        click.echo(f"{name:<{width}}{_cell(value) or '-'}")


def metadata_lines(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return an event's metadata as fields to print."""
    return {f"metadata.{name}": value for name, value in (metadata or {}).items()}


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, flexible: Sequence[str] = ()) -> None:
    """Print rows under their columns.

    On a terminal columns are aligned and the `flexible` ones shortened so that a line fits; piped, cells
    are whole and separated by tabs. Numbers are set to the right.
    """
    room = terminal_columns()
    if room is None:
        click.echo("\t".join(name.lower().removesuffix(" utc").replace(" ", "_") for name in columns))
        for row in rows:
            click.echo("\t".join(_piped_cell(value) for value in row))
        return
    cells = [[_short_cell(value) for value in row] for row in rows]
    if not cells:
        click.echo("none", err=True)
        return
    widths = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    _shrink(widths, [list(columns).index(name) for name in flexible], room)
    click.echo(click.style(_line(columns, widths), bold=True))
    for row in cells:
        click.echo(_line(row, widths))


def terminal_columns() -> int | None:
    """Return how wide the terminal is; None when the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _shrink(widths: list[int], places: Sequence[int], room: int) -> None:
    """Take from the widest of the flexible columns until a line fits the terminal."""
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    for _ in range(max(0, excess)):
        widest = max(places, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= _MIN_FLEXIBLE_WIDTH:
            return
        widths[widest] -= 1


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(_fit(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _fit(cell: str, width: int) -> str:
    if _width(cell) > width:
        while cell and _width(cell) > width - 1:
            cell = cell[:-1]
        cell += "…"
    padding = " " * (width - _width(cell))
    return padding + cell if cell.lstrip("~").isdigit() else cell + padding


def _width(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return escape(",".join(map(str, value)))
    return escape(str(value))


def _short_cell(value: Any) -> str:
    return value.astimezone(UTC).strftime("%m-%d %H:%M:%S") if isinstance(value, datetime) else _cell(value)


def _piped_cell(value: Any) -> str:
    return rfc3339(value) if isinstance(value, datetime) else _cell(value)


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Page):
        return value.items
    if is_dataclass(value):
        return fields_of(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
