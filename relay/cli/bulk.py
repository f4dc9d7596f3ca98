"""`relay bulk …`: put back very many deliveries, at a rate; relays do it, and whoever dies goes on where it was."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, get_args

import click

from outbox.control.filters import Filters
from outbox.control.times import duration
from relay.cli.options import after_option, confirm, filters, json_option, yes_option
from relay.cli.output import escape, fields_of, print_fields, print_json, print_json_lines, print_more, print_table
from relay.cli.source import Source, query_of, with_source, with_source_to_change
from relay.client import calls
from relay.operations.bulk import operations
from relay.operations.bulk.plan import plan_bulk
from relay.operations.bulk.request import BulkRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from relay.operations.bulk.operations import BulkOperation
    from relay.operations.bulk.plan import Plan
    from relay.operations.bulk.request import Kind

__all__ = ["bulk"]


@click.group()
def bulk() -> None:
    """Put back many deliveries: planned first, at a rate, to be watched, paused, resumed and cancelled.

    \b
    Examples:
      relay bulk recover sub_… --since 2h            what failed for one endpoint
      relay bulk replay sub_… --since 1d --until 2h  send a window again
      relay bulk backfill sub_…                      what was recorded before it subscribed
      relay bulk redrive --reason http_5xx           dead letters by filter
      relay bulk show bulk_…                         how far it is

    Relays carry it out. Each deliver at most --rate a second of it in all, and it takes a tenth of their time
    at most. Nobody has to wait for it: if a relay dies, another goes on.
    """


def _to_begin(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of one that begins an operation."""

    @click.option(
        "--rate", type=click.IntRange(1, 100_000), default=operations.DEFAULT_RATE, show_default=True,
        help="Deliveries a second at most.",
    )  # fmt: skip
    @click.option("--dry-run", is_flag=True, help="Say how many it would be, keep nothing.")
    @click.option("--no-start", is_flag=True, help="Keep it as planned; relay bulk start begins it.")
    @yes_option
    @json_option
    @with_source_to_change
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return wrapped


_subscription = click.argument("subscription", metavar="SUB")


@bulk.command()
@_subscription
@filters("since")
@_to_begin
def recover(source: Source, subscription: str, **given: Any) -> None:
    """Put back what failed for one subscription: dead letters since a time, and what waits for a retry.

    --since is needed: when it died, or failed. What waits keeps its attempts and its schedule.
    """
    _begin(source, "recover", subscription=subscription, **given)


@bulk.command()
@_subscription
@filters("since", "until", "type")
@_to_begin
def replay(source: Source, subscription: str, **given: Any) -> None:
    """Send again the events of a window that went to one subscription, delivered, cancelled or dead.

    --since is needed; since and until are about when the event was recorded. What is on its way is left out.
    """
    _begin(source, "replay", subscription=subscription, **given)


@bulk.command()
@_subscription
@filters("since", "until", "type")
@_to_begin
def backfill(source: Source, subscription: str, **given: Any) -> None:
    """Send a subscription the events of the past that match its types and filter and that it never had.

    As far back as events are kept, the oldest first. What is recorded from now on comes by itself.
    """
    _begin(source, "backfill", subscription=subscription, **given)


@bulk.command()
@filters("subscription", "since", "until", "type", "tenant")
@click.option("--reason", metavar="CLASS", help="Class of the last error: http_5xx, timeout, crash, …")
@_to_begin
def redrive(source: Source, **given: Any) -> None:
    """Put back dead letters that pass a filter; since and until are about when they died."""
    _begin(source, "redrive", **given)


def _begin(
    source: Source, kind: Kind, *, rate: int, dry_run: bool, no_start: bool, yes: bool, as_json: bool,
    type_: str | None = None, **given: Any,
) -> None:  # fmt: skip
    """Plan the operation, ask, and start it."""
    request = BulkRequest(kind=kind, type=type_, **given)
    asked = _asked(request)
    if dry_run or not (yes or no_start):
        plan = source.ask(
            lambda connection: plan_bulk(connection, None, request), lambda: calls.plan_bulk_operation(kind, **asked)
        )
        if dry_run or not as_json:
            _print_plan(plan, rate, as_json=as_json)
        if dry_run:
            return
        confirm(f"Put back {_number(plan.count, exact=plan.exact)} deliveries?", yes=False)

    def begin(connection: Connection) -> BulkOperation:
        made = operations.add_bulk(connection, None, request, rate=rate)
        return made if no_start else operations.start_bulk(connection, None, made.id)

    made = source.ask(begin, lambda: calls.add_bulk_operation(kind, rate=rate, start=not no_start, **asked))
    if as_json:
        print_json(made)
        return
    click.echo(f"{made.id} {made.state}: {_number(made.planned, exact=made.planned_exactly)} deliveries")
    click.echo(f"relay bulk {'start' if no_start else 'show'} {made.id}", err=True)


def _asked(request: BulkRequest) -> dict[str, Any]:
    """Return the filters of a request as the API's body has them."""
    names = ("subscription", "since", "until", "type", "tenant")
    asked = query_of(Filters(**{name: getattr(request, name) for name in names}))
    del asked["limit"]
    return asked if request.reason is None else asked | {"reason": request.reason}


def _print_plan(plan: Plan, rate: int, *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    takes = duration(plan.count / rate)
    number = _number(plan.count, exact=plan.exact)
    click.echo(f"would put back {number} deliveries, in {'' if plan.exact else 'more than '}{takes} at {rate}/s")
    if plan.passed_over:
        click.echo(f"{plan.passed_over:,} dead letters cannot be: not readable, not resolved, or nobody's")
    if plan.not_sendable_because:
        click.echo(f"{plan.subscription_id} is {plan.not_sendable_because}: they wait until it is resumed")
    for one in plan.sample:
        click.echo(escape(f"{one.id}  {one.type}"))


def _number(count: int, *, exact: bool) -> str:
    return f"{count:,}" if exact else f"{count:,} or more"


@bulk.command("list")
@filters("since", "until", "subscription")
@click.option("--state", type=click.Choice(get_args(operations.State)), help="Only what is in this state.")
@filters("limit")
@after_option
@json_option
@with_source
def list_(source: Source, state: Any, after: str | None, *, as_json: bool, **given: Any) -> None:
    """List bulk operations, newest first."""
    wanted = Filters(**given)
    found = source.ask(
        lambda connection: operations.list_bulk(connection, None, wanted, state=state, after=after),
        lambda: calls.list_bulk_operations(**query_of(wanted), state=state, after=after),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [(one.id, one.kind, one.state, f"{one.done}", _planned(one), one.created_at) for one in found]
        print_table(["OPERATION", "KIND", "STATE", "DONE", "OF", "PLANNED UTC"], rows)
    print_more(found)


@bulk.command()
@click.argument("operation", metavar="OPERATION")
@json_option
@with_source
def show(source: Source, operation: str, *, as_json: bool) -> None:
    """Show one operation (bulk_…) and how far it is."""
    _print(_read(source, operation), as_json=as_json)


@bulk.command()
@click.argument("operation", metavar="OPERATION")
@yes_option
@json_option
@with_source_to_change
def start(source: Source, operation: str, *, yes: bool, as_json: bool) -> None:
    """Start an operation that was planned with --no-start."""
    confirm(f"Put back {_planned(_read(source, operation))} deliveries?", yes=yes)
    started = source.ask(
        lambda connection: operations.start_bulk(connection, None, operation),
        lambda: calls.start_bulk_operation(operation),
    )
    _print(started, as_json=as_json)


@bulk.command()
@click.argument("operation", metavar="OPERATION")
@json_option
@with_source_to_change
def pause(source: Source, operation: str, *, as_json: bool) -> None:
    """Put nothing more back until it is resumed."""
    paused = source.ask(
        lambda connection: operations.pause_bulk(connection, None, operation),
        lambda: calls.pause_bulk_operation(operation),
    )
    _print(paused, as_json=as_json)


@bulk.command()
@click.argument("operation", metavar="OPERATION")
@click.option("--rate", type=click.IntRange(1, 100_000), help="Go on at this rate.")
@json_option
@with_source_to_change
def resume(source: Source, operation: str, *, rate: int | None, as_json: bool) -> None:
    """Go on where it was paused, or where it failed."""

    def go_on(connection: Connection) -> BulkOperation:
        if rate is not None:
            operations.set_bulk_rate(connection, None, operation, rate)
        return operations.resume_bulk(connection, None, operation)

    _print(source.ask(go_on, lambda: calls.resume_bulk_operation(operation, rate)), as_json=as_json)


@bulk.command()
@click.argument("operation", metavar="OPERATION")
@json_option
@with_source_to_change
def cancel(source: Source, operation: str, *, as_json: bool) -> None:
    """End it for good. What was put back by then goes out."""
    ended = source.ask(
        lambda connection: operations.cancel_bulk(connection, None, operation),
        lambda: calls.cancel_bulk_operation(operation),
    )
    _print(ended, as_json=as_json)


def _read(source: Source, operation: str) -> BulkOperation:
    return source.ask(
        lambda connection: operations.show_bulk(connection, None, operation),
        lambda: calls.get_bulk_operation(operation),
    )


def _print(one: BulkOperation, *, as_json: bool) -> None:
    if as_json:
        print_json(one)
        return
    asked = ", ".join(f"{name} {value}" for name, value in one.parameters.items())
    left_out = ("parameters", "planned", "planned_exactly", "sample", "became")
    told = {"asked": asked or "-", "planned": _planned(one), "became": _became(one)}
    print_fields(fields_of(one, *left_out) | told)


def _became(one: BulkOperation) -> str:
    found = one.became
    if found is None:
        return "-"
    counts = {"arrived": found.delivered, "on their way": found.outstanding, "dead": found.dead,
              "cancelled": found.cancelled}  # fmt: skip
    said = [
        f"{_number(count, exact=found.exact)} {name}" for name, count in counts.items() if count or name != "cancelled"
    ]
    others = [f"{found.others:,} others (retries made due, put back again, or past retention)"] if found.others else []
    return ", ".join(said + others)


def _planned(one: BulkOperation) -> str:
    return _number(one.planned, exact=one.planned_exactly)
