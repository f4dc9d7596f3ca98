"""`relay dead-letters …`: what was given up."""

from __future__ import annotations

from typing import Any

import click

from outbox.control import dead_letters as operations
from outbox.control.filters import Filters
from relay.cli.options import (
    Database,
    after_option,
    confirm,
    filters,
    json_option,
    with_database,
    with_database_to_change,
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

__all__ = ["dead_letters"]

NO_PAYLOAD = "none: the server could not read it"


@click.group("dead-letters")
def dead_letters() -> None:
    """What was given up, with the reason. A dead letter leaves by replay or purge only, never by age."""


@dead_letters.command("list")
@filters("since", "until", "type", "tenant", "key", "subscription", "event", "text", "limit")
@after_option
@json_option
@with_database
def list_(database: Database, type_: str | None, after: str | None, *, as_json: bool, **given: Any) -> None:
    """List dead letters, newest first; since and until are about when they died.

    \b
    Examples:
      relay dead-letters list --since 1d
      relay replay --since 1d --dry-run          and then deliver them again
    """
    with database.transaction() as connection:
        found = operations.list_dead_letters(connection, None, Filters(type=type_, **given), after=after)
    if as_json:
        print_json_lines(found)
    else:
        rows = [(item.id, item.died_at, item.reason, item.type, host_of(item.url)) for item in found]
        print_table(["DELIVERY", "DIED UTC", "REASON", "TYPE", "TO"], rows, flexible=["TYPE", "TO"])
    print_more(found)


@dead_letters.command()
@click.argument("delivery_id", metavar="DELIVERY")
@json_option
@with_database
def show(database: Database, delivery_id: str, *, as_json: bool) -> None:
    """Show one dead letter (dlv_…) with its attempts and payload."""
    with database.transaction() as connection:
        found = operations.show_dead_letter(connection, None, delivery_id)
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
@with_database_to_change
def purge(
    database: Database, delivery_ids: tuple[str, ...], type_: str | None, *, dry_run: bool, yes: bool, **given: Any
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
    with database.transaction() as connection:
        if delivery_ids:
            found = operations.find_by_id(connection, None, delivery_ids)
        else:
            found = operations.find(connection, None, wanted)
    if dry_run:
        click.echo(f"{len(found)} dead letters would be purged")
        return 0
    confirm(f"Purge {len(found)} dead letters for good?", yes=yes)
    with database.transaction() as connection:
        purged = operations.purge(connection, None, found, wanted)
    click.echo(f"purged {purged}")
    return 0 if purged == len(found) else 1
