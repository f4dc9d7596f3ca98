"""`relay prune`: retention, by hand or by cron; a running relay does the same by itself."""

from __future__ import annotations

from typing import Any

import click

from relay.cli.options import actor_option, config_option, database_url_option, flags_of, json_option, load_config
from relay.cli.output import print_json
from relay.config.options import options

__all__ = ["prune"]

_KINDS = ("events", "attempts", "resolutions", "dead_letters", "audit")


@click.command()
@flags_of(option for option in options() if option.name.endswith("_retention_days"))
@click.option("--dry-run", is_flag=True, help="Say how many rows would go, delete none. Reads every event.")
@json_option
@actor_option
@database_url_option
@config_option
def prune(*, dry_run: bool, as_json: bool, actor: str, config_file: str | None, **flags: Any) -> None:
    """Delete what is done and older than its retention. Never anything undelivered.

    Dead letters and the audit are kept for good unless their retention is set.

    \b
    Examples:
      relay prune
      relay prune --events-retention-days 7 --dry-run
    """
    from relay.operations import prune as operations
    from relay.operations.connection import Database

    config = load_config(flags, config_file).config
    days = {f"{kind}_days": getattr(config, f"{kind}_retention_days") for kind in _KINDS}
    with Database(config).connect() as connection:
        if dry_run:
            gone = operations.count_prunable(connection, None, **days)
        else:
            gone = operations.prune(connection, None, **days, actor=actor)
    if as_json:
        print_json(gone)
    else:
        click.echo(
            ("would prune " if dry_run else "pruned ")
            + ", ".join(f"{getattr(gone, kind):,} {kind.replace('_', ' ')}" for kind in _KINDS)
        )
