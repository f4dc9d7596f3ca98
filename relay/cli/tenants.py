"""`relay tenants …`: limits and retention of tenants."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from outbox.subscriptions import limit_tenant, list_tenant_limits
from relay.cli.options import json_option
from relay.cli.output import escape, print_json, print_json_lines, print_table
from relay.cli.source import Source, with_source, with_source_to_change
from relay.client import calls
from relay.client.results import SetLimit
from relay.operations.tenant_retention import TenantRetention, list_tenant_retention, set_tenant_retention

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["tenants"]


@click.group()
def tenants() -> None:
    """How fast a tenant's subscriptions are sent to, and how long what is theirs is kept."""


@tenants.command()
@click.argument("name")
@click.option("--rate", required=True, metavar="N/s|N/min|N/h", help="Requests at most, or none.")
@click.option("--burst", type=int, metavar="N", help="Requests at once after a pause. [default: a tenth of a second's]")
@json_option
@with_source_to_change
def limit(source: Source, name: str, rate: str, burst: int | None, *, as_json: bool) -> None:
    """Limit the requests to all of tenant NAME's endpoints together, over all relays; '' where there are no tenants.

    Each subscription's own --rate-limit holds beside it.

    \b
    Examples:
      relay tenants limit acme --rate 200/s --burst 50
      relay tenants limit acme --rate none
    """
    wanted = None if rate == "none" else rate

    def set_it(connection: Connection) -> SetLimit:
        made = limit_tenant(connection, name, rate_limit=wanted, rate_burst=burst)
        return SetLimit(**asdict(made)) if made else SetLimit(tenant=name, rate_limit=None, rate_burst=None)

    found = source.ask(set_it, lambda: calls.set_tenant_limit(name, wanted, burst))
    if as_json:
        print_json(found)
    else:
        click.echo(escape(f"tenant {name!r}: {_in_words(found)}"))


@tenants.command()
@click.option("--after", metavar="NAME", help="Go on after this tenant.")
@click.option("--limit", "size", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@json_option
@with_source
def limits(source: Source, after: str | None, size: int, *, as_json: bool) -> None:
    """List the tenants that have a limit, by name."""
    found = source.ask(
        lambda connection: tuple(list_tenant_limits(connection, after=after, limit=size)),
        lambda: calls.get_tenant_limits(after=after, limit=size).then(tuple),
    )
    if as_json:
        print_json_lines(asdict(item) for item in found)
        return
    rows = [(item.tenant, item.rate_limit, item.rate_burst or "-") for item in found]
    print_table(["TENANT", "RATE", "BURST"], rows, flexible=["TENANT"])
    if len(found) == size:
        click.echo(escape(f"there may be more: --after {found[-1].tenant}"), err=True)


@tenants.command()
@click.argument("name")
@click.option("--events-days", type=int, metavar="N", help="Events with nothing left to deliver.")
@click.option("--attempts-days", type=int, metavar="N", help="What endpoints answered; the attempts stay on record.")
@click.option("--dead-letters-days", type=int, metavar="N", help="Dead letters, which else stay until purged.")
@with_source_to_change
def retain(
    source: Source, name: str, events_days: int | None, attempts_days: int | None, dead_letters_days: int | None
) -> None:
    """Keep what is tenant NAME's for a shorter time than all others'; without options, for as long as theirs.

    Never anything undelivered, however old. Relays look once an hour.

    \b
    Examples:
      relay tenants retain acme --events-days 7 --attempts-days 7
      relay tenants retain acme
    """
    days = {"events_days": events_days, "attempts_days": attempts_days, "dead_letters_days": dead_letters_days}
    wanted = TenantRetention(name=name, **days)

    def set_it(connection: Connection) -> TenantRetention:
        set_tenant_retention(connection, None, wanted)
        return wanted

    source.ask(set_it, lambda: calls.keep_for(name, **days))
    click.echo(escape(f"tenant {name!r}: {_kept(wanted)}"))


@tenants.command()
@click.option("--after", metavar="NAME", help="Go on after this tenant.")
@click.option("--limit", "size", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@json_option
@with_source
def retention(source: Source, after: str | None, size: int, *, as_json: bool) -> None:
    """List the tenants of which something is kept for a shorter time, by name."""
    found = source.ask(
        lambda connection: list_tenant_retention(connection, None, after=after, limit=size),
        lambda: calls.get_tenant_retention(after=after, limit=size).then(tuple),
    )
    if as_json:
        print_json_lines(found)
        return
    rows = [(one.name, one.events_days, one.attempts_days, one.dead_letters_days) for one in found]
    print_table(["TENANT", "EVENTS DAYS", "ATTEMPTS DAYS", "DEAD LETTERS DAYS"], rows, flexible=["TENANT"])
    if len(found) == size:
        click.echo(escape(f"there may be more: --after {found[-1].name}"), err=True)


def _kept(wanted: TenantRetention) -> str:
    if wanted.is_empty:
        return "kept as of all tenants"
    given = {"events": wanted.events_days, "answers": wanted.attempts_days, "dead letters": wanted.dead_letters_days}
    return ", ".join(f"{what} {days} days" for what, days in given.items() if days is not None)


def _in_words(made: SetLimit) -> str:
    if made.rate_limit is None:
        return "no limit"
    return made.rate_limit + (f", {made.rate_burst} at once" if made.rate_burst else "")
