"""`relay completion`: the script that completes commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Examples:
      relay completion bash > ~/.local/share/bash-completion/completions/relay
      relay completion zsh > "${fpath[1]}/_relay"
      relay completion fish > ~/.config/fish/completions/relay.fish
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(script(context.find_root().command, {}, "relay", "_RELAY_COMPLETE").source())
