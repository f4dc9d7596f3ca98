"""`relay subscriptions …`: a command for each function of outbox.subscriptions; those that change one are here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outbox import subscriptions as verbs
from outbox.subscriptions.declaration import REQUIRED
from outbox.subscriptions.fields import COLUMNS
from relay.cli.by_hand import retry_all
from relay.cli.credential_options import credential_options, sent_credentials
from relay.cli.endpoint_tests import check, test
from relay.cli.explain import filter_test
from relay.cli.formats import formats_
from relay.cli.options import confirm, json_option, scheme_option, warnings_shown, yes_option
from relay.cli.preview import preview
from relay.cli.source import Source, with_source_to_change
from relay.cli.subscription_file import apply, export
from relay.cli.subscription_options import (
    arguments_of,
    field_options,
    key_type_option,
    own_tenant_option,
    secret_file_option,
    secret_in,
    sent_filter,
    subscription_argument,
    whose,
)
from relay.cli.subscription_output import print_subscription
from relay.cli.subscription_reading import list_, show
from relay.client import calls

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from outbox.subscriptions import NewSubscription

__all__ = ["subscriptions"]


@click.group()
def subscriptions() -> None:
    """Who gets which events where. SUBSCRIPTION is an id, sub_… or the UUID, or its name."""


@subscriptions.command()
@click.argument("url")
@click.argument("types", metavar="TYPE...", nargs=-1, required=True)
@click.option("--tenant", default="", metavar="NAME", help="Whose events. [default: no tenant]")
@click.option("--all-tenants", is_flag=True, help="Events of every tenant; for the operator only.")
@field_options(field for field in COLUMNS if field.default is not REQUIRED)
@scheme_option("How to sign; none: not at all, so that anyone can forge it. [default: standard]")
@key_type_option
@secret_file_option
@click.option("--allow-weak-secret", is_flag=True, help="Take an own secret that is too short, with a warning.")
@click.option("--id", "id_", metavar="ID", help="An own id, sub_… or a UUID. [default: a new one]")
@credential_options()
@json_option
@with_source_to_change
def add(
    source: Source, url: str, types: tuple[str, ...], tenant: str, secret_file: Any, id_: str | None, *,
    all_tenants: bool, as_json: bool, credentials: dict[str, Any], **settings: Any,
) -> None:  # fmt: skip
    """Send events of each TYPE to URL. Prints the signing secret, this once.

    A TYPE is exact (order.created), a prefix (order.*) or everything (*, in quotes).

    \b
    Examples:
      relay subscriptions add https://example.com/hooks order.created 'user.*'
      relay subscriptions add https://example.com/hooks '*' --tenant acme
      relay subscriptions add https://example.com/hooks '*' --schedule-seconds 5,60,600
      relay subscriptions add https://example.com/hooks '*' --scheme github --secret-file secret.txt
      relay subscriptions add https://example.com/hooks '*' --authentication-file oauth2.json
      relay subscriptions add https://hooks.slack.com/services/… 'order.*' --format slack
    """
    if all_tenants and tenant:
        raise click.UsageError("--tenant and --all-tenants exclude each other")
    if all_tenants:
        source.refuse_by_api("--all-tenants", "such a subscription is made in the database only")
    arguments = arguments_of(settings) | credentials | {"secret": secret_in(secret_file), "id": id_}

    def make(connection: Connection) -> NewSubscription:
        if all_tenants:
            return verbs.add_for_every_tenant(connection, url, types, **arguments)
        return verbs.add(connection, url, types, tenant=tenant, **arguments)

    with warnings_shown():
        made = source.ask(make, lambda: calls.add_subscription(url, types, tenant=tenant or None, **_sent(arguments)))
    print_subscription(made, as_json=as_json)


@subscriptions.command()
@subscription_argument
@own_tenant_option
@field_options(COLUMNS)
@credential_options(removable=True)
@json_option
@with_source_to_change
def update(
    source: Source, subscription_id: str, tenant: str | None, *, as_json: bool, credentials: dict[str, Any],
    **settings: Any,
) -> None:  # fmt: skip
    """Change the fields that are given; the others stay.

    \b
    Example:
      relay subscriptions update sub_… --url https://example.com/new --types 'order.*,user.created'
    """
    changes = arguments_of(settings) | credentials
    source.require_tenant(subscription_id, tenant)
    changed = source.ask(
        lambda connection: verbs.update(connection, subscription_id, tenant=whose(tenant), **changes),
        lambda: calls.change_subscription(subscription_id, "*", **_sent(changes)),
    )
    print_subscription(changed, as_json=as_json)


@subscriptions.command()
@subscription_argument
@own_tenant_option
@click.option("--drop", is_flag=True, help="What comes meanwhile is not kept for it: it matches no event.")
@json_option
@with_source_to_change
def pause(source: Source, subscription_id: str, tenant: str | None, *, drop: bool, as_json: bool) -> None:
    """Stop sending; deliveries gather and wait until resume. With --drop, what comes meanwhile never comes."""
    source.require_tenant(subscription_id, tenant)
    changed = source.ask(
        lambda connection: verbs.pause(connection, subscription_id, drop=drop, tenant=whose(tenant)),
        lambda: calls.pause_subscription(subscription_id, drop=drop),
    )
    print_subscription(changed, as_json=as_json)


@subscriptions.command()
@subscription_argument
@own_tenant_option
@click.option("--reason", required=True, metavar="TEXT", help="Why, for everybody who looks; at most 500 bytes.")
@json_option
@with_source_to_change
def disable(source: Source, subscription_id: str, tenant: str | None, reason: str, *, as_json: bool) -> None:
    """Stop sending for a reason, as after 410 Gone. Deliveries gather and wait until resume."""
    source.require_tenant(subscription_id, tenant)
    changed = source.ask(
        lambda connection: verbs.disable(connection, subscription_id, tenant=whose(tenant), reason=reason),
        lambda: calls.disable_subscription(subscription_id, reason),
    )
    print_subscription(changed, as_json=as_json)


@subscriptions.command()
@subscription_argument
@own_tenant_option
@click.option("--now", is_flag=True, help="Also what waits for a retry: its endpoint is mended.")
@json_option
@with_source_to_change
def resume(source: Source, subscription_id: str, tenant: str | None, *, now: bool, as_json: bool) -> None:
    """Send again, beginning with what gathered, whether it was paused, disabled or held back."""
    source.require_tenant(subscription_id, tenant)
    changed = source.ask(
        lambda connection: verbs.resume(connection, subscription_id, tenant=whose(tenant)),
        lambda: calls.resume_subscription(subscription_id),
    )
    hastened = retry_all(source, changed.id, tenant) if now else None
    print_subscription(changed, as_json=as_json)
    if hastened is not None:
        click.echo(f"{hastened:,} deliveries that waited for a retry are due now", err=True)


@subscriptions.command()
@subscription_argument
@own_tenant_option
@yes_option
@json_option
@with_source_to_change
def remove(source: Source, subscription_id: str, tenant: str | None, *, yes: bool, as_json: bool) -> None:
    """End it for good: what it had still to get is cancelled. Dead letters stay."""
    from relay.operations.status.late_subscriptions import subscription_health

    source.require_tenant(subscription_id, tenant)
    found = source.ask(
        lambda connection: verbs.get(connection, subscription_id, tenant=whose(tenant)),
        lambda: calls.get_subscription(subscription_id).then(lambda one: one.subscription),
    )
    health = source.ask(
        lambda connection: subscription_health(connection, tenant, found.id),
        lambda: calls.get_health(found.id).then(lambda one: one.backlog),
    )
    confirm(f"Remove {found.id} ({found.url}) and cancel its {health.outstanding} outstanding deliveries?", yes=yes)
    removed = source.ask(
        lambda connection: verbs.remove(connection, subscription_id, tenant=whose(tenant)),
        lambda: calls.remove_subscription(subscription_id),
    )
    print_subscription(removed, as_json=as_json)


@subscriptions.command("rotate-secret")
@subscription_argument
@own_tenant_option
@secret_file_option
@scheme_option("Sign by this from now on. [default: as before]")
@key_type_option
@click.option(
    "--overlap-seconds",
    type=int,
    metavar="N",
    help="How long the old ones sign along. [default: 86400, or 0 where a request carries one signature]",
)
@json_option
@with_source_to_change
def rotate_secret(
    source: Source, subscription_id: str, tenant: str | None, secret_file: Any, *, as_json: bool, **settings: Any
) -> None:
    """Give it a new signing secret and print that, this once. Old ones sign along for a while.

    \b
    Examples:
      relay subscriptions rotate-secret sub_…
      relay subscriptions rotate-secret sub_… --overlap-seconds 0      the old one leaked
      relay subscriptions rotate-secret sub_… --scheme stripe          its receiver has moved
    """
    given = arguments_of(settings) | {"secret": secret_in(secret_file)}
    source.require_tenant(subscription_id, tenant)
    changed = source.ask(
        lambda connection: verbs.rotate_secret(connection, subscription_id, tenant=whose(tenant), **given),
        lambda: calls.rotate_secret(subscription_id, **given),
    )
    print_subscription(changed, as_json=as_json)


subscriptions.add_command(list_)
subscriptions.add_command(show)
subscriptions.add_command(formats_)
subscriptions.add_command(test)
subscriptions.add_command(check)
subscriptions.add_command(preview)
subscriptions.add_command(filter_test)
subscriptions.add_command(apply)
subscriptions.add_command(export)


def _sent(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a verb as the API's body has them."""
    sent = sent_credentials(arguments)
    return sent if sent.get("filter") is None else sent | {"filter": sent_filter(sent["filter"])}
