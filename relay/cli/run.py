"""`relay run`: every option of `relay.config.options` that is one of `run` is a flag of it."""

from __future__ import annotations

from typing import Any

import click

from relay.cli.options import config_option, flags_of, load_config
from relay.config.options import options_of

__all__ = ["run"]


@click.command(epilog="Stop it with SIGTERM: it finishes what is under way. A second SIGTERM leaves at once.")
@click.option(
    "--until-drained",
    is_flag=True,
    help="Leave when nothing is pending, due or leased; what waits does not hold it.",
)
@config_option
@flags_of(options_of("run"))
def run(*, until_drained: bool, config_file: str | None, **flags: Any) -> int:
    """Deliver recorded events to their subscriptions, until told to stop.

    \b
    Examples:
      relay run --database-url postgresql://relay@db/shop
      relay run --processes 2
      relay run --until-drained --allow-http --allow-networks 127.0.0.0/8
    """
    loaded = load_config(flags, config_file)
    loaded.config.conninfo()
    from relay.process.daemon import run as run_daemon

    return run_daemon(loaded.config, until_drained=until_drained)
