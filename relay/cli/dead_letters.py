"""`relay dead-letters …`: what was given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outbox.control import dead_letters as operations
from outbox.control.filters import Filters
from relay.cli.options import (
    after_option,
    confirm,
    filters,
    json_option,
    yes_option,
)
from relay.cli.output import (
    escape,
    fields_of,
    host_of,
    print_attempts,
    print_fields,
    print_json,
    print_json_lines,
    print_more,
    print_table,
)
from relay.cli.source import Source, ids_of, query_of, with_source, with_source_to_change
from relay.client import calls

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from outbox.ids import DeliveryId

__all__ = ["dead_letters"]

NO_PAYLOAD = "none: the server could not read it"


@click.group("dead-letters")
def dead_letters() -> None:
    """Show or purge what was given up. A dead letter leaves by replay or purge; by age only where that is set."""


@dead_letters.command("list")
@filters("since", "until", "type", "tenant", "key", "subscription", "event", "text", "limit")
@after_option
@json_option
@with_source
def list_(source: Source, type_: str | None, after: str | None, *, as_json: bool, **given: Any) -> None:
    """List dead letters, newest first; since and until are about when they died.

    \b
    Examples:
      relay dead-letters list --since 1d
      relay replay --since 1d --dry-run          and then deliver them again
    """
    wanted = Filters(type=type_, **given)
    found = source.ask(
        lambda connection: operations.list_dead_letters(connection, None, wanted, after=after),
        lambda: calls.get_dead_letters(**query_of(wanted), after=after),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [(item.id, item.died_at, item.reason, item.type, host_of(item.url)) for item in found]
        print_table(["DELIVERY", "DIED UTC", "REASON", "TYPE", "TO"], rows, flexible=["TYPE", "TO"])
    print_more(found)


@dead_letters.command()
@click.argument("delivery_id", metavar="DELIVERY")
@json_option
@with_source
def show(source: Source, delivery_id: str, *, as_json: bool) -> None:
    """Show one dead letter (dlv_…) with its attempts and payload."""
    found = source.ask(
        lambda connection: operations.show_dead_letter(connection, None, delivery_id),
        lambda: calls.get_dead_letter(delivery_id),
    )
    if as_json:
        print_json(found)
        return
    print_fields(fields_of(found, "attempts_made", "payload"))
    print_attempts(found.attempts_made)
    click.echo(f"\nPayload\n{NO_PAYLOAD if found.payload is None else escape(found.payload)}")


@dead_letters.command()
@click.argument("delivery_ids", metavar="[DELIVERY]...", nargs=-1)
@filters("since", "until", "type", "tenant", "key", "subscription", "limit")
@click.option("--dry-run", is_flag=True, help="Say how many, delete none.")
@yes_option
@with_source_to_change
def purge(
    source: Source, delivery_ids: tuple[str, ...], type_: str | None, *, dry_run: bool, yes: bool, **given: Any
) -> int:
    """Delete dead letters for good, by id or by filter, the oldest first.

    \b
    Examples:
      relay dead-letters purge dlv_… --yes
      relay dead-letters purge --subscription sub_… --until 30d --limit 1000 --dry-run
    """
    wanted = Filters(type=type_, **given)
    if bool(delivery_ids) != wanted.empty:
        raise click.UsageError("give ids, or at least one filter (--since, --subscription, …), not both")
    found: list[DeliveryId] = []

    def find(connection: Connection) -> int:
        found[:] = (
            operations.find_by_id(connection, None, delivery_ids)
            if delivery_ids
            else operations.find(connection, None, wanted)
        )
        return len(found)

    chosen = (ids_of(delivery_ids), None) if delivery_ids else (None, query_of(wanted))
    count = source.ask(find, lambda: calls.purge_dead_letters(*chosen, dry_run=True).then(lambda said: said.count))
    if dry_run:
        click.echo(f"{count} dead letters would be purged")
        return 0
    confirm(f"Purge {count} dead letters for good?", yes=yes)
    purged = source.ask(
        lambda connection: operations.purge(connection, None, found, wanted),
        lambda: calls.purge_dead_letters(*chosen).then(lambda said: said.count),
    )
    click.echo(f"purged {purged}")
    return 0 if purged == count else 1
