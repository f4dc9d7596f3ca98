"""`relay events …`: what was recorded, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outbox.control.events import STATES, list_events, show_event
from outbox.control.filters import Filters
from relay.cli.options import after_option, filters, json_option
from relay.cli.output import (
    counted,
    escape,
    fields_of,
    host_of,
    metadata_lines,
    print_attempts,
    print_fields,
    print_json,
    print_json_lines,
    print_more,
    print_table,
)
from relay.cli.source import Source, query_of, with_source
from relay.client import calls

if TYPE_CHECKING:
    from outbox.control.events import EventDetails, ListedEvent

__all__ = ["events"]


@click.group()
def events() -> None:
    """Show what happened: recorded events."""


@events.command("list")
@filters("since", "until", "type", "tenant", "key", "text", "limit")
@click.option("--state", type=click.Choice(STATES), help="Only these. [default: all]")
@after_option
@json_option
@with_source
def list_(source: Source, type_: str | None, state: Any, after: str | None, *, as_json: bool, **given: Any) -> None:
    """List events, newest first, with what became of each.

    \b
    States: pending (to be resolved), under_way, delivered, dead (see dead-letters),
    partly_delivered (the others cancelled or purged), unmatched (no subscriber),
    cancelled (subscription removed), unknown (record pruned).

    \b
    Examples:
      relay events list --since 15m --type 'order.*'
      relay events list --key customer-7 --json
      relay events list --state unmatched --since 1h
    """
    wanted = Filters(type=type_, **given)
    found = source.ask(
        lambda connection: list_events(connection, None, wanted, state, after=after),
        lambda: calls.get_events(**query_of(wanted), state=state, after=after),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [(item.id, item.recorded_at, item.state, counted(item), item.type, _key(item)) for item in found]
        columns = ["EVENT", "RECORDED UTC", "STATE", "SUBSCRIPTIONS", "TYPE", "KEY"]
        print_table(columns, rows, flexible=["SUBSCRIPTIONS", "TYPE", "KEY"])
    print_more(found)


@events.command()
@click.argument("event_id", metavar="EVENT")
@json_option
@with_source
def show(source: Source, event_id: str, *, as_json: bool) -> None:
    """Show one EVENT (evt_…): who matched, what is outstanding, each attempt, its payload."""
    found = source.ask(lambda connection: show_event(connection, None, event_id), lambda: calls.get_event(event_id))
    if as_json:
        print_json(found)
    else:
        _print_event(found)


def _print_event(found: EventDetails) -> None:
    matched = f"{found.resolution.matched} subscriptions" if found.resolution else None
    nested = ("counts", "resolution", "deliveries", "attempts", "dead_letters", "trace", "metadata", "payload")
    told = {"matched": matched, "subscriptions": counted(found.counts)}
    told |= metadata_lines(found.metadata) | (found.trace or {})
    print_fields(fields_of(found, *nested) | told)
    if found.deliveries:
        click.echo("\nOutstanding")
        rows = [(item.id, item.state, item.at, item.attempts, host_of(item.url)) for item in found.deliveries]
        print_table(["DELIVERY", "STATE", "DUE", "#", "TO"], rows, flexible=["TO"])
    print_attempts(found.attempts)
    if found.dead_letters:
        click.echo("\nDead letters")
        dead = [(item.delivery_id, item.died_at, item.reason, item.error) for item in found.dead_letters]
        print_table(["DELIVERY", "DIED", "REASON", "ERROR"], dead, flexible=["ERROR"])
    click.echo(f"\nPayload\n{escape(found.payload)}")


def _key(item: ListedEvent) -> str:
    return f"{item.tenant}/{item.key or ''}" if item.tenant else item.key or "-"
