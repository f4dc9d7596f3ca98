"""The reference: pages that are made from code, from what each says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docs.site.reference.command_line import command_line
from docs.site.reference.configuration import configuration
from docs.site.reference.http import http
from docs.site.reference.python import errors, python
from docs.site.reference.sql import sql

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGES: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration,
    "reference/python.md": python,
    "reference/command-line.md": command_line,
    "reference/http.md": http,
    "reference/sql.md": sql,
    "reference/errors.md": errors,
}


def write_reference(pages: Path) -> None:
    """Write each page of the reference into the site's pages."""
    for place, make in PAGES.items():
        (pages / place).parent.mkdir(parents=True, exist_ok=True)
        (pages / place).write_text(make(), encoding="utf-8")
