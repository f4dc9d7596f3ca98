"""`relay subscriptions list` and `show`: read subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outbox import subscriptions as verbs
from relay.cli.options import json_option
from relay.cli.output import fields_of, print_json_lines, print_table
from relay.cli.source import Source, with_source
from relay.cli.subscription_options import own_tenant_option, subscription_argument, whose
from relay.cli.subscription_output import document_of, print_subscription, state_of, tenant_name
from relay.client import calls

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from outbox.subscriptions import Subscription
    from relay.operations.status.breakers import Breaker
    from relay.operations.status.documents import SubscriptionHealth

__all__ = ["list_", "show"]


@click.command("list")
@click.option("--tenant", metavar="NAME", help="Only this tenant's.")
@click.option(
    "--state", type=click.Choice(["active", "paused", "disabled", "removed"]), help="[default: all but removed]"
)
@click.option("--type", "type_", metavar="TYPE", help="Only those that get events of this type.")
@click.option("--after", metavar="SUB", help="Go on after this subscription.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@json_option
@with_source
def list_(
    source: Source, tenant: str | None, state: Any, type_: str | None, after: str | None, limit: int, *,
    as_json: bool,
) -> None:  # fmt: skip
    """List subscriptions, oldest first.

    \b
    Examples:
      relay subscriptions list --state disabled
      relay subscriptions list --type order.created --tenant acme --json
    """
    from relay.operations.status.breakers import breakers_of, in_words

    def read(connection: Connection) -> list[tuple[Subscription, Breaker]]:
        listed = verbs.list(connection, tenant=whose(tenant), state=state, type=type_, after=after, limit=limit)
        breakers = breakers_of(connection, tenant, [item.id for item in listed])
        return list(zip(listed, breakers.values(), strict=True))

    found = source.ask(
        read,
        lambda: calls.list_subscriptions(tenant=tenant, state=state, type=type_, after=after, limit=limit).then(
            lambda page: [(item.subscription, item.breaker) for item in page]
        ),
    )
    if as_json:
        print_json_lines(document_of(item) | {"breaker": fields_of(breaker)} for item, breaker in found)
        return
    rows = [
        (item.id, ", ".join(filter(None, (state_of(item), in_words(breaker)))), tenant_name(item), item.types, item.url)
        for item, breaker in found
    ]
    print_table(["SUBSCRIPTION", "STATE", "TENANT", "TYPES", "URL"], rows, flexible=["STATE", "TENANT", "TYPES", "URL"])
    if len(found) == limit:
        click.echo(f"there may be more: --after {found[-1][0].id}", err=True)


@click.command()
@subscription_argument
@own_tenant_option
@click.option("--removed", is_flag=True, help="Also a removed one, until housekeeping has cleared it.")
@json_option
@with_source
def show(source: Source, subscription_id: str, tenant: str | None, *, removed: bool, as_json: bool) -> None:
    """Show one subscription, its backlog and its last attempt. Never its secret."""
    from relay.operations.status.breakers import breaker_of, in_words
    from relay.operations.status.late_subscriptions import subscription_health

    def read(connection: Connection) -> tuple[Subscription, SubscriptionHealth, Breaker]:
        one = verbs.get(connection, subscription_id, tenant=whose(tenant), removed=removed)
        return one, subscription_health(connection, tenant, one.id), breaker_of(connection, tenant, one.id)

    if removed:
        source.refuse_by_api("--removed", "the API shows no removed subscription")
    source.require_tenant(subscription_id, tenant)
    found = source.ask(
        lambda connection: read(connection)[0],
        lambda: calls.get_subscription(subscription_id).then(lambda one: one.subscription),
    )
    health, breaker = source.ask(
        lambda connection: read(connection)[1:],
        lambda: calls.get_health(subscription_id).then(lambda one: (one.backlog, one.breaker)),
    )
    said = fields_of(breaker) if as_json else in_words(breaker) or "closed"
    more = {"breaker": said} if as_json else {"breaker": said, "disable_at": breaker.disable_at}
    print_subscription(found, fields_of(health) | more, as_json=as_json)
