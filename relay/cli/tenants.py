"""`relay tenants …`: the limits of tenants."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from outbox.subscriptions import limit_tenant, list_tenant_limits
from relay.cli.options import Database, json_option, with_database, with_database_to_change
from relay.cli.output import escape, print_json, print_json_lines, print_table

if TYPE_CHECKING:
    from outbox.subscriptions import TenantLimit

__all__ = ["tenants"]


@click.group()
def tenants() -> None:
    """How fast all of a tenant's subscriptions together are sent to."""


@tenants.command()
@click.argument("name")
@click.option("--rate", required=True, metavar="N/s|N/min|N/h", help="Requests at most, or none.")
@click.option("--burst", type=int, metavar="N", help="Requests at once after a pause. [default: a tenth of a second's]")
@json_option
@with_database_to_change
def limit(database: Database, name: str, rate: str, burst: int | None, *, as_json: bool) -> None:
    """Limit the requests to all of tenant NAME's endpoints together, over all relays; '' where there are no tenants.

    Each subscription's own --rate-limit holds beside it.

    \b
    Examples:
      relay tenants limit acme --rate 200/s --burst 50
      relay tenants limit acme --rate none
    """
    with database.transaction() as connection:
        made = limit_tenant(connection, name, rate_limit=None if rate == "none" else rate, rate_burst=burst)
    if as_json:
        print_json({"tenant": name, "rate_limit": None, "rate_burst": None} if made is None else asdict(made))
    else:
        click.echo(escape(f"tenant {name!r}: {'no limit' if made is None else _in_words(made)}"))


@tenants.command()
@click.option("--after", metavar="NAME", help="Go on after this tenant.")
@click.option("--limit", "size", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@json_option
@with_database
def limits(database: Database, after: str | None, size: int, *, as_json: bool) -> None:
    """List the tenants that have a limit, by name."""
    with database.transaction() as connection:
        found = list_tenant_limits(connection, after=after, limit=size)
    if as_json:
        print_json_lines(asdict(item) for item in found)
        return
    rows = [(item.tenant, item.rate_limit, item.rate_burst or "-") for item in found]
    print_table(["TENANT", "RATE", "BURST"], rows, flexible=["TENANT"])
    if len(found) == size:
        click.echo(escape(f"there may be more: --after {found[-1].tenant}"), err=True)


def _in_words(made: TenantLimit) -> str:
    return made.rate_limit + (f", {made.rate_burst} at once" if made.rate_burst else "")
