"""Every command and its help, from click."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from docs.site.markdown import fence
from relay.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """# Command line

What each command says with `--help`. Commands that list or show have `--json`: one object is one document, a list is
one object a line.
"""


def command_line() -> str:
    """Return the page: a heading for each command."""
    return _HEAD + "".join(_sections(cli, "relay"))


def _sections(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent, max_content_width=100)
    context.terminal_width = 100
    level = "##" if name.count(" ") < 2 else "###"
    yield f"\n{level} {name}\n\n{fence(command.get_help(context))}"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None and not found.hidden:
                yield from _sections(found, f"{name} {inner}", context)
