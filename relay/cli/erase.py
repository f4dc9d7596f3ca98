"""`relay erase …`: everything about a tenant, a key or a person, for good, with a receipt."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

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
from relay.cli.output import print_json, print_json_lines, print_more, print_table
from relay.operations.erase import erasure as operations
from relay.operations.erase.request import EraseRequest, plan_erasure

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.operations.erase.erasure import Erasure
    from relay.operations.erase.request import ErasePlan

__all__ = ["erase"]


@click.group()
def erase() -> None:
    """Erase a tenant, a key or a person for good: events, dead letters, answers, secrets; print a receipt.

    \b
    Examples:
      relay erase subject customer.id=42 --dry-run
      relay erase key customer-42 --tenant acme
      relay erase tenant acme --cancel-undelivered

    What was done stays on record without content. Backups, the write-ahead log and what receivers were sent
    are not reached: docs/operations.md says what to do. If this command is stopped, a relay goes on.
    """


def _to_erase(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of one that erases."""

    @click.option("--dry-run", is_flag=True, help="Say how much it would be, erase nothing. Reads every event.")
    @click.option("--cancel-undelivered", is_flag=True, help="Cancel what is not delivered yet; else it is refused.")
    @yes_option
    @json_option
    @with_database_to_change
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return wrapped


@erase.command()
@click.argument("name")
@_to_erase
def tenant(database: Database, name: str, **given: Any) -> int:
    """Erase everything about tenant NAME: events, subscriptions with their secrets, limits, answers."""
    return _erase(database, EraseRequest(kind="tenant", value=name), **given)


@erase.command()
@click.argument("key_")
@click.option("--tenant", "within", metavar="NAME", help="Only events of this tenant.")
@_to_erase
def key(database: Database, key_: str, within: str | None, **given: Any) -> int:
    """Erase the events whose key is KEY."""
    return _erase(database, EraseRequest(kind="key", value=key_, within=within), **given)


@erase.command()
@click.argument("subject_", metavar="PATH=VALUE")
@click.option("--tenant", "within", metavar="NAME", help="Only events of this tenant.")
@_to_erase
def subject(database: Database, subject_: str, within: str | None, **given: Any) -> int:
    """Erase the events in whose data VALUE stands at PATH: customer.id=42.

    Member names have dots between them. 42 is found as a number and as a text. Every element of an array is
    looked into.
    """
    path, equals, value = subject_.partition("=")
    if not equals:
        raise click.UsageError(f"{subject_!r} is no PATH=VALUE, such as customer.id=42")
    return _erase(database, EraseRequest(kind="subject", path=path, value=value, within=within), **given)


def _erase(
    database: Database, request: EraseRequest, *, dry_run: bool, cancel_undelivered: bool, yes: bool, as_json: bool
) -> int:
    if dry_run or not yes:
        with database.transaction() as connection:
            plan = plan_erasure(connection, None, request)
        if dry_run:
            _print_plan(plan, as_json=as_json)
            return 0
        confirm(f"Erase for good: {_in_words(plan)}?", yes=False)
    with database.transaction() as connection:
        asked = operations.request_erasure(connection, None, request, cancel_undelivered=cancel_undelivered)
    click.echo(f"{asked.id}: a relay goes on with it if this is stopped", err=True)
    with database.connect() as connection:
        return _end(operations.run_erasure(connection, None, asked.id))


def _end(ended: Erasure) -> int:
    """Print the receipt of what is done, or say why it is not."""
    if ended.state == "done":
        print_json(operations.receipt_of(ended))
        return 0
    click.echo(f"{ended.id} is {ended.state}: {ended.last_error or 'erased no more'}", err=True)
    return 1


def _print_plan(plan: ErasePlan, *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
    else:
        click.echo(f"would erase {_in_words(plan)}")


def _in_words(plan: ErasePlan) -> str:
    return (
        f"{plan.events:,} events, {plan.dead_letters:,} dead letters, {plan.subscriptions:,} subscriptions;"
        f" {plan.undelivered:,} undelivered"
    )


@erase.command("list")
@filters("since", "until", "limit")
@after_option
@json_option
@with_database
def list_(database: Database, after: str | None, *, as_json: bool, **given: Any) -> None:
    """List erasures, newest first, without what they were about."""
    with database.transaction() as connection:
        found = operations.list_erasures(connection, None, Filters(**given), after=after)
    if as_json:
        print_json_lines(found)
    else:
        rows = [(one.id, one.kind, one.state, one.requested_by, one.created_at) for one in found]
        print_table(["ERASURE", "KIND", "STATE", "ASKED BY", "ASKED UTC"], rows, flexible=["ASKED BY"])
    print_more(found)


@erase.command()
@click.argument("erasure")
@with_database
def receipt(database: Database, erasure: str) -> None:
    """Print the receipt of an erasure (ers_…) that is done, as JSON."""
    with database.transaction() as connection:
        print_json(operations.receipt_of(operations.show_erasure(connection, None, erasure)))


@erase.command()
@click.argument("erasure")
@click.option("--cancel-undelivered", is_flag=True, help="Cancel what it met.")
@with_database_to_change
def resume(database: Database, erasure: str, *, cancel_undelivered: bool) -> int:
    """Go on with an erasure that met something undelivered."""
    with database.transaction() as connection:
        found = operations.resume_erasure(connection, None, erasure, cancel_undelivered=cancel_undelivered)
    with database.connect() as connection:
        return _end(operations.run_erasure(connection, None, found.id))


@erase.command()
@click.argument("erasure")
@with_database_to_change
def cancel(database: Database, erasure: str) -> None:
    """Erase nothing more; what is gone is gone."""
    with database.transaction() as connection:
        click.echo(f"{operations.cancel_erasure(connection, None, erasure).id} is cancelled")
