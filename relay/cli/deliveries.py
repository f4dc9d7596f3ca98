"""`relay deliveries …`: one event for one subscription."""

from __future__ import annotations

from typing import Any

import anyio
import click

from outbox.control.deliveries import STATES, list_deliveries, show_delivery
from outbox.control.filters import Filters
from outbox.control.history import list_attempts
from relay.cli.by_hand import cancel, retry
from relay.cli.findings import in_words
from relay.cli.options import after_option, filters, json_option
from relay.cli.output import (
    fields_of,
    host_of,
    print_attempts,
    print_fields,
    print_json,
    print_json_lines,
    print_more,
    print_table,
)
from relay.cli.source import Source, query_of, with_source
from relay.client import calls

__all__ = ["deliveries"]


@click.group()
def deliveries() -> None:
    """One event for one subscription: what is under way, and what was delivered."""


@deliveries.command("list")
@filters("since", "until", "type", "tenant", "key", "subscription", "event", "outcome", "status", "text")
@click.option("--state", type=click.Choice(STATES), help="Only these. [default: all that is outstanding]")
@filters("limit")
@after_option
@json_option
@with_source
def list_(source: Source, type_: str | None, state: Any, after: str | None, *, as_json: bool, **given: Any) -> None:
    """List what is still to deliver, the longest due first; what was delivered or cancelled newest first.

    \b
    States: due (to be sent now), waiting (for a retry or its time), parked (another of its key goes
    first), leased (a relay is at it), held (due, the receiver's Retry-After is not over), paused and
    disabled (as their subscription is), removed (with its subscription: it is cleared away), delivered,
    cancelled (by hand). Dead ones: relay dead-letters list.

    \b
    --outcome, --status and --text are about attempts: they go with delivered and cancelled.

    \b
    Examples:
      relay deliveries list --state due --subscription sub_…
      relay deliveries list --state delivered --since 1h --json
    """
    wanted = Filters(type=type_, **given)
    found = source.ask(
        lambda connection: list_deliveries(connection, None, wanted, state, after=after),
        lambda: calls.get_deliveries(**query_of(wanted), state=state, after=after),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [(item.id, item.state, item.at, item.attempts, item.type, host_of(item.url)) for item in found]
        print_table(["DELIVERY", "STATE", "AT UTC", "#", "TYPE", "TO"], rows, flexible=["TYPE", "TO"])
    print_more(found)


@deliveries.command()
@filters("since", "until", "subscription", "event", "outcome", "status", "type", "tenant", "key", "text", "limit")
@after_option
@json_option
@with_source
def attempts(source: Source, type_: str | None, after: str | None, *, as_json: bool, **given: Any) -> None:
    """List attempts, newest first: the history of what was sent, and what came of it.

    A page looks at a bounded number of attempts. It says where it stopped, and how to go on. Quick at
    any size are --subscription, --event, --since, --until and --outcome failed; put the others to them.
    --text is looked for as it is written, in the first 64 KiB of a payload.

    \b
    Examples:
      relay deliveries attempts --subscription sub_… --outcome failed
      relay deliveries attempts --since 1h --status 5xx --type 'order.*'
      relay deliveries attempts --since 1d --text 'duplicate key' --json
    """
    wanted = Filters(type=type_, **given)
    found = source.ask(
        lambda connection: list_attempts(connection, None, wanted, after=after),
        lambda: calls.get_attempts(**query_of(wanted), after=after),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [(item.delivery_id, item.number, item.at, item.status or item.outcome, f"{item.milliseconds} ms",
                 item.type, item.verdict if item.error is None else f"{item.verdict}: {item.error}")
                for item in found]  # fmt: skip
        columns = ["DELIVERY", "#", "AT UTC", "ANSWER", "TOOK", "TYPE", "RESULT"]
        print_table(columns, rows, flexible=["TYPE", "RESULT"])
    print_more(found)


deliveries.add_command(retry)
deliveries.add_command(cancel)


@deliveries.command()
@click.argument("delivery_id", metavar="DELIVERY")
@click.option("--curl", is_flag=True, help="Print a command that repeats the request, signed now.")
@json_option
@with_source
def show(source: Source, delivery_id: str, *, curl: bool, as_json: bool) -> None:
    """Show one DELIVERY (dlv_…) with each of its attempts, wherever it is now.

    --curl makes its request once more, as the subscription is now, signs it, and prints a command for
    a POSIX shell; nothing is sent. A receiver takes the signature for about five minutes. Credentials
    are in it as ***, which it says: a token, headers of your own, a URL that is one.

    \b
    Examples:
      relay deliveries show dlv_…
      relay deliveries show dlv_… --curl | sh
    """
    if curl:
        _print_curl(source, delivery_id, as_json=as_json)
        return
    found = source.ask(
        lambda connection: show_delivery(connection, None, delivery_id), lambda: calls.get_delivery(delivery_id)
    )
    alive = () if found.state == "dead" else ("reason", "error")
    if as_json:
        print_json(fields_of(found, *alive))
        return
    advice = {} if found.advice is None else {"advice": in_words(found.advice)}
    print_fields(fields_of(found, "attempts_made", "advice", *alive) | advice)
    print_attempts(found.attempts_made)


def _print_curl(source: Source, delivery_id: str, *, as_json: bool) -> None:
    from relay.operations.endpoint_tests.repeat import repeat_request

    if source.database is None:
        raise click.UsageError("--curl: it signs with a key that only relays hold; leave out --api")
    found = anyio.run(repeat_request, source.database, None, delivery_id)
    if as_json:
        print_json(found)
        return
    if found.redacted:
        click.echo(f"# put in what stands as ***: {', '.join(found.redacted)}")
    click.echo(found.curl)
