"""`relay pause-all`, `relay resume-all`: one switch for all sending."""

from __future__ import annotations

import click

from outbox.control.times import duration, utc
from relay.cli.options import Database, json_option, with_database_to_change
from relay.cli.output import escape, print_json
from relay.operations import sending

__all__ = ["pause_all", "resume_all"]


@click.command()
@click.option("--reason", metavar="TEXT", help="Why, for everybody who looks; at most 500 bytes.")
@json_option
@with_database_to_change
def pause_all(database: Database, reason: str | None, *, as_json: bool) -> None:
    """Stop all sending, of every relay on every host, within a second.

    Applications go on recording and events are resolved; what is due waits, unasked and uncharged. A
    request on the wire ends as it ends. Test messages by hand still go out.

    \b
    Example:
      relay pause-all --reason 'wrong prices in order.created'
    """
    with database.transaction() as connection:
        now = sending.pause_all(connection, None, reason)
    if as_json:
        print_json(now)
    elif now.paused_at is not None:
        why = f": {now.reason}" if now.reason else ""
        click.echo(escape(f"all sending is paused since {utc(now.paused_at)}{why}; relay resume-all ends it"))


@click.command()
@json_option
@with_database_to_change
def resume_all(database: Database, *, as_json: bool) -> None:
    """Send again: what is due goes out at once, the longest due first."""
    with database.transaction() as connection:
        before = sending.resume_all(connection, None)
        now = sending.read_sending(connection, None)
        clock = connection.exec_driver_sql("select clock_timestamp()").scalar_one()
    if as_json:
        print_json(now)
    elif before.paused_at is None:
        click.echo("sending was not paused")
    else:
        click.echo(f"sending goes on after {duration((clock - before.paused_at).total_seconds())}")
