"""`relay serve`: the HTTP API, and the pages."""

from __future__ import annotations

from typing import Any

import click

from relay.cli.options import config_option, flags_of, load_config
from relay.config.options import options_of

__all__ = ["serve"]


@click.command(epilog="Stop it with SIGTERM: requests under way are answered, no other is taken.")
@config_option
@flags_of(options_of("serve"))
def serve(*, config_file: str | None, **flags: Any) -> int:
    """Serve the HTTP API and its pages. It sends no delivery: that is what relay run does.

    Whoever calls needs a token: relay tokens create. The API describes itself at /api/v1/docs.

    \b
    Examples:
      relay serve
      relay serve --listen 0.0.0.0:8080 --requests-per-minute 6000
    """
    loaded = load_config(flags, config_file)
    loaded.config.conninfo()
    try:
        from relay.web.serving import serve as run_server
    except ModuleNotFoundError as error:
        raise click.UsageError(f"relay serve needs {error.name}: pip install 'outbox-relay[web]'") from None
    return run_server(loaded.config)
