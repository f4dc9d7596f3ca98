"""`relay erase …`: everything about a tenant, a key or a person, for good, with a receipt."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import click

from outbox.control.filters import Filters
from relay.cli.options import after_option, confirm, filters, json_option, yes_option
from relay.cli.output import print_json, print_json_lines, print_more, print_table
from relay.cli.source import Source, query_of, with_source, with_source_to_change
from relay.client import calls
from relay.operations.erase import erasure as operations
from relay.operations.erase.request import EraseRequest, plan_erasure

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.operations.erase.erasure import Erasure
    from relay.operations.erase.request import ErasePlan

__all__ = ["erase"]

# By the API relays erase; a tenth of their time goes into it, so a large erasure takes longer than one waits.
WAITED_SECONDS = 60
_LOOKS_EVERY_SECONDS = 0.5


@click.group()
def erase() -> None:
    """Erase a tenant, a key or a person for good: events, dead letters, answers, secrets; print a receipt.

    \b
    Examples:
      relay erase subject customer.id=42 --dry-run
      relay erase key customer-42 --tenant acme
      relay erase tenant acme --cancel-undelivered

    What was done stays on record without content. Backups, the write-ahead log and what receivers were sent
    are not reached: docs/retention.md says what to do. If this command is stopped, a relay goes on. With --api
    relays do all of it, and the command waits a minute for the receipt.
    """


def _to_erase(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of one that erases."""

    @click.option("--dry-run", is_flag=True, help="Say how much it would be, erase nothing. Reads every event.")
    @click.option("--cancel-undelivered", is_flag=True, help="Cancel what is not delivered yet; else it is refused.")
    @yes_option
    @json_option
    @with_source_to_change
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return wrapped


@erase.command()
@click.argument("name")
@_to_erase
def tenant(source: Source, name: str, **given: Any) -> int:
    """Erase everything about tenant NAME: events, subscriptions with their secrets, limits, answers."""
    return _erase(source, EraseRequest(kind="tenant", value=name), **given)


@erase.command()
@click.argument("key_")
@click.option("--tenant", "within", metavar="NAME", help="Only events of this tenant.")
@_to_erase
def key(source: Source, key_: str, within: str | None, **given: Any) -> int:
    """Erase the events whose key is KEY."""
    return _erase(source, EraseRequest(kind="key", value=key_, within=within), **given)


@erase.command()
@click.argument("subject_", metavar="PATH=VALUE")
@click.option("--tenant", "within", metavar="NAME", help="Only events of this tenant.")
@_to_erase
def subject(source: Source, subject_: str, within: str | None, **given: Any) -> int:
    """Erase the events in whose data VALUE stands at PATH: customer.id=42.

    Member names have dots between them. 42 is found as a number and as a text. Every element of an array is
    looked into.
    """
    path, equals, value = subject_.partition("=")
    if not equals:
        raise click.UsageError(f"{subject_!r} is no PATH=VALUE, such as customer.id=42")
    return _erase(source, EraseRequest(kind="subject", path=path, value=value, within=within), **given)


def _erase(
    source: Source, request: EraseRequest, *, dry_run: bool, cancel_undelivered: bool, yes: bool, as_json: bool
) -> int:
    it: dict[str, Any] = {"path": request.path, "within": request.within}
    if dry_run or not yes:
        plan = source.ask(
            lambda connection: plan_erasure(connection, None, request),
            lambda: calls.plan_an_erasure(request.kind, request.value, **it),
        )
        if dry_run:
            _print_plan(plan, as_json=as_json)
            return 0
        confirm(f"Erase for good: {_in_words(plan)}?", yes=False)
    asked = source.ask(
        lambda connection: operations.request_erasure(connection, None, request, cancel_undelivered=cancel_undelivered),
        lambda: calls.request_an_erasure(request.kind, request.value, **it, cancel_undelivered=cancel_undelivered),
    )
    click.echo(f"{asked.id}: a relay goes on with it if this is stopped", err=True)
    return _end(source, asked)


def _end(source: Source, asked: Erasure) -> int:
    """Carry it out, or where the API is asked wait for the relay that does; print the receipt, or say why not."""
    if source.database is None:
        ended = _wait(source, asked)
    else:
        with source.database.connect() as connection:
            ended = operations.run_erasure(connection, None, asked.id)
    if ended.state == "done":
        _print_receipt(source, str(ended.id))
        return 0
    if ended.state == "running":
        click.echo(f"{ended.id} is not done after {WAITED_SECONDS} s; relays go on with it", err=True)
        click.echo(f"relay erase receipt {ended.id} prints its receipt then", err=True)
        return 1
    click.echo(f"{ended.id} is {ended.state}: {ended.last_error or 'erased no more'}", err=True)
    return 1


def _wait(source: Source, asked: Erasure) -> Erasure:
    """Return the erasure as soon as it runs no more, or as it is when that takes too long."""
    last, found = time.monotonic() + WAITED_SECONDS, asked
    while found.state == "running" and time.monotonic() < last:
        time.sleep(_LOOKS_EVERY_SECONDS)
        found = _read(source, str(asked.id))
    return found


def _read(source: Source, erasure: str) -> Erasure:
    return source.ask(
        lambda connection: operations.show_erasure(connection, None, erasure), lambda: calls.get_erasure(erasure)
    )


def _print_receipt(source: Source, erasure: str) -> None:
    found = source.ask(
        lambda connection: operations.receipt_of(operations.show_erasure(connection, None, erasure)),
        lambda: calls.get_receipt(erasure),
    )
    print_json(found)


def _print_plan(plan: ErasePlan, *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
    else:
        click.echo(f"would erase {_in_words(plan)}")


def _in_words(plan: ErasePlan) -> str:
    return (
        f"{plan.events:,} events, {plan.dead_letters:,} dead letters, {plan.subscriptions:,} subscriptions,"
        f" {plan.received_requests:,} received requests; {plan.undelivered:,} undelivered"
    )


@erase.command("list")
@filters("since", "until", "limit")
@after_option
@json_option
@with_source
def list_(source: Source, after: str | None, *, as_json: bool, **given: Any) -> None:
    """List erasures, newest first, without what they were about."""
    wanted = Filters(**given)
    found = source.ask(
        lambda connection: operations.list_erasures(connection, None, wanted, after=after),
        lambda: calls.list_erasures(**query_of(wanted), after=after),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [(one.id, one.kind, one.state, one.requested_by, one.created_at) for one in found]
        print_table(["ERASURE", "KIND", "STATE", "ASKED BY", "ASKED UTC"], rows, flexible=["ASKED BY"])
    print_more(found)


@erase.command()
@click.argument("erasure")
@with_source
def receipt(source: Source, erasure: str) -> None:
    """Print the receipt of an erasure (ers_…) that is done, as JSON."""
    _print_receipt(source, erasure)


@erase.command()
@click.argument("erasure")
@click.option("--cancel-undelivered", is_flag=True, help="Cancel what it met.")
@with_source_to_change
def resume(source: Source, erasure: str, *, cancel_undelivered: bool) -> int:
    """Go on with an erasure that met something undelivered."""
    found = source.ask(
        lambda connection: operations.resume_erasure(connection, None, erasure, cancel_undelivered=cancel_undelivered),
        lambda: calls.resume_erasure(erasure, cancel_undelivered=cancel_undelivered),
    )
    return _end(source, found)


@erase.command()
@click.argument("erasure")
@with_source_to_change
def cancel(source: Source, erasure: str) -> None:
    """Erase nothing more; what is gone is gone."""
    ended = source.ask(
        lambda connection: operations.cancel_erasure(connection, None, erasure), lambda: calls.cancel_erasure(erasure)
    )
    click.echo(f"{ended.id} is cancelled")
