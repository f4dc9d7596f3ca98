"""What commands print: tables that fit the terminal, plain lines when piped, JSON; no control characters."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from relay.operations.wording import escaped, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["print_fields", "print_json", "print_json_lines", "print_table"]

_MIN_FLEXIBLE_WIDTH = 8


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object as one indented document."""
    click.echo(json.dumps(value, default=_json_value, indent=2))


def print_json_lines(values: Iterable[Mapping[str, Any]]) -> None:
    """Print each object on a line of its own."""
    for value in values:
        click.echo(json.dumps(value, default=_json_value))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print names and values, one a line, the values aligned."""
    width = max(len(name) for name in fields) + 2
    for name, value in fields.items():
        click.echo(f"{name:<{width}}{_cell(value) or '-'}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, flexible: Sequence[str] = ()) -> None:
    """Print rows under their columns.

    On a terminal columns are aligned and the `flexible` ones shortened so that a line fits; piped, cells
    are whole and separated by tabs. Numbers are set to the right.
    """
    room = _terminal_columns()
    if room is None:
        click.echo("\t".join(name.lower().removesuffix(" utc").replace(" ", "_") for name in columns))
        for row in rows:
            click.echo("\t".join(_piped(value) for value in row))
        return
    cells = [[_short(value) for value in row] for row in rows]
    if not cells:
        click.echo("none", err=True)
        return
    widths = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    _shrink(widths, [list(columns).index(name) for name in flexible], room)
    click.echo(click.style(_line(columns, widths), bold=True))
    for row in cells:
        click.echo(_line(row, widths))


def _terminal_columns() -> int | None:
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
    return "  ".join(_fitted(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _fitted(cell: str, width: int) -> str:
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
    if isinstance(value, list | tuple):
        return escaped(",".join(map(str, value)))
    return escaped(str(value))


def _short(value: Any) -> str:
    return value.astimezone(UTC).strftime("%m-%d %H:%M:%S") if isinstance(value, datetime) else _cell(value)


def _piped(value: Any) -> str:
    return rfc3339(value) if isinstance(value, datetime) else _cell(value)


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
