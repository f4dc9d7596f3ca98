"""`relay events …`: what was recorded, and what became of it."""

from __future__ import annotations

from typing import Any

import click

from relay.cli.options import Database, filters, json_option, with_database
from relay.cli.output import print_fields, print_json, print_json_lines, print_table
from relay.cli.parts import host_of, print_attempts
from relay.operations.events import list_events, show_event
from relay.operations.filters import Filters
from relay.operations.wording import escaped

__all__ = ["events"]


@click.group()
def events() -> None:
    """What happened: recorded events."""


@events.command("list")
@filters("since", "until", "type", "tenant", "key", "limit")
@json_option
@with_database
def list_(database: Database, type_: str | None, *, as_json: bool, **given: Any) -> None:
    """List events, newest first, with what became of each.

    \b
    States: pending (to be resolved), under_way, delivered, dead (see dead-letters),
    unmatched (no subscriber), cancelled (subscription removed), unknown (record pruned).

    \b
    Examples:
      relay events list --since 15m --type 'order.*'
      relay events list --key customer-7 --json
    """
    with database.transaction() as connection:
        found = list_events(connection, Filters(type=type_, **given))
    if as_json:
        print_json_lines(found)
        return
    rows = [(item["id"], item["recorded_at"], item["state"], item["type"], _key(item)) for item in found]
    print_table(["EVENT", "RECORDED UTC", "STATE", "TYPE", "KEY"], rows, flexible=["TYPE", "KEY"])


@events.command()
@click.argument("event_id", metavar="EVENT")
@json_option
@with_database
def show(database: Database, event_id: str, *, as_json: bool) -> None:
    """Show one EVENT (evt_…): who matched, what is outstanding, each attempt, its payload."""
    with database.transaction() as connection:
        found = show_event(connection, event_id)
    if as_json:
        print_json(found)
        return
    nested = ("resolution", "deliveries", "attempts", "dead_letters", "payload")
    resolution = found["resolution"]
    matched = f"{resolution['matched']} subscriptions" if resolution else None
    print_fields({name: value for name, value in found.items() if name not in nested} | {"matched": matched})
    if found["deliveries"]:
        click.echo("\nOutstanding")
        rows = [
            (item["id"], item["state"], item["at"], item["attempts"], host_of(item["url"]))
            for item in found["deliveries"]
        ]
        print_table(["DELIVERY", "STATE", "DUE", "#", "TO"], rows, flexible=["TO"])
    print_attempts(found["attempts"])
    if found["dead_letters"]:
        click.echo("\nDead letters")
        dead = [(item["delivery_id"], item["died_at"], item["reason"], item["error"]) for item in found["dead_letters"]]
        print_table(["DELIVERY", "DIED", "REASON", "ERROR"], dead, flexible=["ERROR"])
    click.echo(f"\nPayload\n{escaped(found['payload'])}")


def _key(item: dict[str, Any]) -> str:
    return f"{item['tenant']}/{item['key'] or ''}" if item["tenant"] else item["key"] or "-"
