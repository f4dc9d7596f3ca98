"""`relay adopt`: send from a database that was copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outbox.control.times import duration
from relay.cli.options import Database, confirm, json_option, with_database_to_change, yes_option
from relay.cli.output import escape, fields_of, print_fields, print_json
from relay.operations import adoption
from relay.operations.status.outstanding import read_outstanding

if TYPE_CHECKING:
    from relay.operations.status.documents import Count, Deliveries, Pending

__all__ = ["adopt"]


@click.command()
@yes_option
@json_option
@with_database_to_change
def adopt(database: Database, *, yes: bool, as_json: bool) -> None:
    """Send from this database, though it is a copy of another one.

    A relay sends nothing from a database that was at home in another cluster or under another name:
    what it holds is most likely sent by its original. This says that it is to be sent from here. It
    shows first what would go out, and discards nothing. What must not go out: relay pause-all before,
    relay deliveries cancel after it, then relay resume-all.

    \b
    Examples:
      relay adopt
      relay adopt --yes          after pg_upgrade, in a script
    """
    with database.transaction() as connection:
        home = adoption.read_home(connection, None)
        pending, deliveries = read_outstanding(connection, None)
    if home.is_copied:
        if not as_json:
            _show(home, pending, deliveries)
        confirm("Send all of it from here?", yes=yes)
        with database.transaction() as connection:
            adoption.adopt(connection, None)
    if as_json:
        print_json(
            {
                "adopted": home.is_copied,
                **fields_of(home),
                "pending": fields_of(pending),
                "deliveries": fields_of(deliveries),
            }
        )
    else:
        click.echo(escape(_result(home)))


def _show(home: adoption.Home, pending: Pending, deliveries: Deliveries) -> None:
    click.echo(escape(f"It was at home as {' and '.join(home.elsewhere)}, and is {home.here} now. In it wait:"))
    print_fields(
        {
            "pending": _aged(pending.count, pending.oldest_seconds, "events to be resolved"),
            "due": _aged(deliveries.open, deliveries.oldest_due_seconds, "deliveries that go out at once"),
            "later": f"{deliveries.waiting} deliveries wait for their time, {deliveries.parked} behind another of their"
            f" key, {deliveries.closed} while their subscription is paused, disabled or held",
            "left": f"{deliveries.left} deliveries were being sent, {deliveries.ended} of an ended lease: again soon",
        }
    )


def _aged(count: Count, seconds: float | None, words: str) -> str:
    return f"{count} {words}" + ("" if seconds is None else f", the oldest for {duration(seconds)}")


def _result(home: adoption.Home) -> str:
    if home.is_copied:
        return f"adopted: relays send from {home.here}"
    if not home.noted:
        return f"nothing to adopt: no relay has run here yet, and the first one makes {home.here} its home"
    return f"nothing to adopt: it is at home as {home.here}"
