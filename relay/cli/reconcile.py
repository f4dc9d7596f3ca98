"""`relay reconcile`: was anything lost?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outbox.control.times import utc
from relay.cli.options import Moment, json_option, with_database
from relay.cli.output import print_json, print_table
from relay.operations.reconciliation import reconcile as compare
from relay.operations.status.unresolved_events import sql_to_mend

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from relay.operations.connection import Database
    from relay.operations.reconciliation import Reconciled

__all__ = ["reconcile"]


@click.command()
@click.option(
    "--since", type=Moment(), metavar="TIME", default="1h", show_default=True,
    help="Events that were resolved since then: 2h ago, a day, or RFC 3339.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="List so many events.")
@json_option
@with_database
def reconcile(database: Database, since: datetime | timedelta, limit: int, *, as_json: bool) -> int:
    """Compare how many subscriptions each event matched with its deliveries, attempts and dead letters.

    Each that matched must be outstanding, delivered, dead, cancelled, or removed since. Exit code 1, and a line for
    each event, where one is missing: somebody deleted rows. It reads every delivery, and the attempts since then;
    an event counts until it is pruned. Also told are events since then that nobody ever resolved, and never will.

    \b
    Examples:
      relay reconcile
      relay reconcile --since 7d --json
    """
    with database.transaction() as connection:
        found = compare(connection, None, since, limit=limit)
    if as_json:
        print_json(found)
    else:
        _print(found)
    return 1 if found.missing or found.unresolved.count else 0


def _print(found: Reconciled) -> None:
    about = f"{found.resolved:,} events resolved since {utc(found.since)}, {found.matched:,} deliveries of them"
    unresolved = found.unresolved
    if not found.missing and not unresolved.count:
        click.echo(f"nothing is missing: {about}")
    if found.missing:
        _print_missing(found, about)
    if unresolved.count:
        of = f"{unresolved.count:,} of {unresolved.of_last:,} events"
        click.echo(f"{of} are neither pending nor resolved, nobody will ever send them:")
        for event_id in unresolved.events:
            click.echo(event_id)
        click.echo(f"this sends these: as outbox_operator: {sql_to_mend(unresolved.events)}", err=True)


def _print_missing(found: Reconciled, about: str) -> None:
    click.echo(f"{found.missing:,} deliveries of {found.incomplete:,} events are missing: {about}")
    rows = [
        (event.id, event.type, event.tenant, utc(event.resolved_at), event.matched, event.accounted, event.removed)
        for event in found.events
    ]
    print_table(["EVENT", "TYPE", "TENANT", "RESOLVED", "MATCHED", "FOUND", "REMOVED"], rows, flexible=["TYPE"])
    click.echo("relay audit tells who deleted what; relay replay evt_… --to sub_… sends it after all", err=True)
