"""`relay subscriptions formats`: the shapes that a body can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.cli.options import json_option
from relay.cli.output import print_json_lines, print_table
from relay.cli.source import with_api
from relay.client import calls
from relay.operations.schemes import format_documents

if TYPE_CHECKING:
    from relay.client import Client

__all__ = ["formats_"]


@click.command("formats")
@json_option
@with_api
def formats_(client: Client | None, *, as_json: bool) -> None:
    """List the formats of bodies, and what each can be told by --format-settings.

    \b
    Example:
      relay subscriptions add https://example.com/hooks '*' --format cloudevents --format-settings source=/shop
    """
    found = format_documents() if client is None else client(calls.get_formats())
    if as_json:
        print_json_lines(found)
        return
    rows = [(one["name"], one["content_type"], one["summary"], ", ".join(one["settings"])) for one in found]
    print_table(["NAME", "CONTENT TYPE", "BODY", "SETTINGS"], rows, flexible=["BODY", "SETTINGS"])
