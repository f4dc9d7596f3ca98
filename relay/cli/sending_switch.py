"""`relay pause-all`, `relay resume-all`: one switch for all sending."""

from __future__ import annotations

import click

from outbox.control.times import duration, utc
from relay.cli.options import json_option
from relay.cli.output import escape, fields_of, print_json
from relay.cli.source import Source, with_source_to_change
from relay.client import calls
from relay.operations import sending_switch

__all__ = ["pause_all", "resume_all"]


@click.command()
@click.option("--reason", metavar="TEXT", help="Why, for everybody who looks; at most 500 bytes.")
@json_option
@with_source_to_change
def pause_all(source: Source, reason: str | None, *, as_json: bool) -> None:
    """Stop all sending, of every relay on every host, within a second.

    Applications go on recording and events are resolved; what is due waits, unasked and uncharged. A
    request on the wire ends as it ends. Test messages by hand still go out.

    \b
    Example:
      relay pause-all --reason 'wrong prices in order.created'
    """
    now = source.ask(
        lambda connection: sending_switch.pause_all(connection, None, reason), lambda: calls.pause_sending(reason)
    )
    if as_json:
        print_json(now)
    elif now.paused_at is not None:
        why = f": {now.reason}" if now.reason else ""
        click.echo(escape(f"all sending is paused since {utc(now.paused_at)}{why}; relay resume-all ends it"))


@click.command()
@json_option
@with_source_to_change
def resume_all(source: Source, *, as_json: bool) -> None:
    """Send again: what is due goes out at once, the longest due first."""
    now = source.ask(lambda connection: sending_switch.resume_sending(connection, None), calls.resume_sending)
    if as_json:
        print_json(fields_of(now, "paused_seconds"))
    elif now.paused_seconds is None:
        click.echo("sending was not paused")
    else:
        click.echo(f"sending goes on after {duration(now.paused_seconds)}")
