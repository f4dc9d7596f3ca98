"""`relay subscriptions formats`: the shapes that a body can have."""

from __future__ import annotations

import click

from outbox import formats
from relay.cli.options import json_option
from relay.cli.output import print_json_lines, print_table
from relay.operations.schemes import format_documents

__all__ = ["formats_"]


@click.command("formats")
@json_option
def formats_(*, as_json: bool) -> None:
    """List the formats of bodies, and what each can be told by --format-settings.

    \b
    Example:
      relay subscriptions add https://example.com/hooks '*' --format cloudevents --format-settings source=/shop
    """
    if as_json:
        print_json_lines(format_documents())
        return
    rows = [(row.name, row.content_type, row.summary, ", ".join(row.settings)) for row in formats.FORMATS.values()]
    print_table(["NAME", "CONTENT TYPE", "BODY", "SETTINGS"], rows, flexible=["BODY", "SETTINGS"])
