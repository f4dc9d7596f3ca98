"""`relay config`: the value of each option, and where it came from."""

from __future__ import annotations

from typing import Any

import click

from relay.cli.options import config_option, flags_of, json_option, load_config
from relay.cli.output import print_json_lines, print_table
from relay.config.options import options

__all__ = ["config"]


@click.command()
@json_option
@config_option
@flags_of(options())
def config(*, as_json: bool, config_file: str | None, **flags: Any) -> None:
    """Print each option of `relay run`, its value and where that came from. Secrets are redacted.

    \b
    The first that says something wins:
      flag --max-in-flight · env RELAY_MAX_IN_FLIGHT · key max_in_flight in the file · default
    """
    loaded = load_config(flags, config_file)
    rows = [
        {
            "name": option.name,
            "value": option.text_of(getattr(loaded.config, option.name)),
            "origin": loaded.origins[option.name],
        }
        for option in options()
    ]
    if as_json:
        print_json_lines(rows)
    else:
        print_table(["OPTION", "VALUE", "ORIGIN"], [tuple(row.values()) for row in rows], flexible=["VALUE"])
