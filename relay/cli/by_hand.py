"""`relay deliveries retry` and `cancel`: what a person does to deliveries that are outstanding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outbox.control import by_hand
from outbox.control.filters import Filters
from relay.cli.options import confirm, filters, json_option, yes_option
from relay.cli.output import print_json
from relay.cli.source import Source, ids_of, query_of, with_source_to_change
from relay.client import calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from outbox.ids import DeliveryId

__all__ = ["cancel", "retry", "retry_all"]

_FILTERS = ("since", "until", "type", "tenant", "key", "subscription", "limit")
_NAMED = 20
BATCH = 10_000


@click.command()
@click.argument("delivery_ids", metavar="[DELIVERY]...", nargs=-1)
@filters(*_FILTERS)
@click.option("--dry-run", is_flag=True, help="Say what would be due, change nothing.")
@yes_option
@json_option
@with_source_to_change
def retry(
    source: Source, delivery_ids: tuple[str, ...], type_: str | None, *, dry_run: bool, yes: bool, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Send now what waits for a retry: a DELIVERY by id, or all that pass a filter.

    Its attempts stay as they are, so a failure goes on with the schedule where it was. A filter leaves
    out what was never tried and has a time of its own; by id that goes out too. --since and --until are
    about when the event was recorded.

    \b
    Examples:
      relay deliveries retry dlv_…
      relay deliveries retry --subscription sub_… --limit 10000 --yes
    """
    wanted = _wanted(delivery_ids, type_, given)
    chosen = (ids_of(delivery_ids), None) if delivery_ids else (None, query_of(wanted))
    found = source.ask(
        lambda connection: (
            by_hand.waiting_by_id(connection, None, delivery_ids)
            if delivery_ids
            else by_hand.waiting_by_filter(connection, None, wanted)
        ),
        lambda: calls.retry_deliveries(*chosen, dry_run=True).then(lambda said: list(said.deliveries)),
    )
    if dry_run:
        _report("would be due now", found, wanted, as_json=as_json)
        return
    if not delivery_ids:
        confirm(f"Send {len(found)} deliveries now?", yes=yes)
    done = source.ask(
        lambda connection: by_hand.retry_now(connection, None, found, None if delivery_ids else wanted),
        lambda: calls.retry_deliveries(*chosen).then(
            lambda said: by_hand.Retried(deliveries=said.deliveries, not_sendable=said.not_sendable)
        ),
    )
    _report("due now", done.deliveries, wanted, as_json=as_json, not_sendable=done.not_sendable)
    for name in () if as_json else done.not_sendable[:_NAMED]:
        click.echo(f"{name} is paused, disabled or held back: relay subscriptions resume {name}", err=True)


@click.command()
@click.argument("delivery_ids", metavar="[DELIVERY]...", nargs=-1)
@filters(*_FILTERS)
@click.option("--dry-run", is_flag=True, help="Say what would be cancelled, change nothing.")
@yes_option
@json_option
@with_source_to_change
def cancel(
    source: Source, delivery_ids: tuple[str, ...], type_: str | None, *, dry_run: bool, yes: bool, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Cancel for good what is outstanding: a DELIVERY by id, or all that pass a filter.

    It is counted as cancelled (deliveries list --state cancelled), and relay replay can still send it. A
    request that is on the wire may arrive. --since and --until are about when the event was recorded.

    \b
    Examples:
      relay deliveries cancel dlv_… --yes
      relay deliveries cancel --subscription sub_… --type 'order.*' --since 1h --dry-run
    """
    wanted = _wanted(delivery_ids, type_, given)
    chosen = (ids_of(delivery_ids), None) if delivery_ids else (None, query_of(wanted))
    found = source.ask(
        lambda connection: (
            by_hand.outstanding_by_id(connection, None, delivery_ids)
            if delivery_ids
            else by_hand.outstanding_by_filter(connection, None, wanted)
        ),
        lambda: calls.cancel_deliveries(*chosen, dry_run=True).then(lambda said: list(said.deliveries)),
    )
    if dry_run:
        _report("would be cancelled", found, wanted, as_json=as_json)
        return
    confirm(f"Cancel {len(found)} deliveries for good?", yes=yes)
    done = source.ask(
        lambda connection: by_hand.cancel(connection, None, found, None if delivery_ids else wanted),
        lambda: calls.cancel_deliveries(*chosen).then(
            lambda said: by_hand.Cancelled(deliveries=said.deliveries, subscriptions=(), leased=said.leased)
        ),
    )
    _report("cancelled", done.deliveries, wanted, as_json=as_json, leased=done.leased)
    if done.leased and not as_json:
        click.echo(f"{len(done.leased)} of them were being sent: these requests may still arrive", err=True)


def retry_all(source: Source, subscription_id: str, tenant: str | None) -> int:
    """Make all that waits for a retry to a subscription due, some a transaction; return how many there were."""
    waiting, done, found = Filters(subscription=subscription_id, limit=BATCH), 0, BATCH

    def retry_some(connection: Connection) -> tuple[int, int]:
        some = by_hand.waiting_by_filter(connection, tenant, waiting)
        return len(some), len(by_hand.retry_now(connection, tenant, some, waiting).deliveries)

    while found == BATCH:
        found, made = source.ask(
            retry_some, lambda: calls.retry_deliveries(None, query_of(waiting)).then(lambda said: (said.count,) * 2)
        )
        done += made
    return done


def _wanted(delivery_ids: Sequence[str], type_: str | None, given: dict[str, Any]) -> Filters:
    wanted = Filters(type=type_, **given)
    if bool(delivery_ids) != wanted.empty:
        raise click.UsageError("give ids, or at least one filter (--since, --subscription, …), not both")
    return wanted


def _report(words: str, ids: Sequence[DeliveryId], wanted: Filters, *, as_json: bool, **more: Any) -> None:
    if as_json:
        print_json({"count": len(ids), "deliveries": list(ids), **more})
        return
    click.echo(f"{len(ids)} deliveries {words}")
    for name in ids[:_NAMED]:
        click.echo(name)
    if not wanted.empty and len(ids) == wanted.limit:
        click.echo("there may be more: repeat it, or raise --limit", err=True)
