"""`relay subscriptions …`: a command for each function of outbox.subscriptions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from outbox import formats
from outbox import subscriptions as verbs
from outbox.control.times import duration, who_held
from outbox.signing.schemes import UNSIGNED
from outbox.subscriptions import NewSubscription, Subscription
from outbox.subscriptions.declaration import REQUIRED
from outbox.subscriptions.fields import COLUMNS
from outbox.subscriptions.filters.values import in_json
from relay.cli.by_hand import retry_all
from relay.cli.credential_options import credential_options, sent_credentials
from relay.cli.explain import filter_test
from relay.cli.formats import formats_
from relay.cli.options import (
    confirm,
    json_option,
    scheme_option,
    warn,
    warnings_shown,
    yes_option,
)
from relay.cli.output import fields_of, print_fields, print_json, print_json_lines, print_table
from relay.cli.preview import preview
from relay.cli.probe import check, test
from relay.cli.source import Source, with_source, with_source_to_change
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
from relay.client import calls

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from relay.operations.status.breakers import Breaker
    from relay.operations.status.documents import SubscriptionHealth

__all__ = ["subscriptions"]


@click.group()
def subscriptions() -> None:
    """Who gets which events where. SUBSCRIPTION is an id, sub_… or the UUID; most commands take its name too."""


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
    _show(made, as_json=as_json)


@subscriptions.command("list")
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
        print_json_lines(_document(item) | {"breaker": fields_of(breaker)} for item, breaker in found)
        return
    rows = [
        (item.id, ", ".join(filter(None, (_state(item), in_words(breaker)))), _tenant_name(item), item.types, item.url)
        for item, breaker in found
    ]
    print_table(["SUBSCRIPTION", "STATE", "TENANT", "TYPES", "URL"], rows, flexible=["STATE", "TENANT", "TYPES", "URL"])
    if len(found) == limit:
        click.echo(f"there may be more: --after {found[-1][0].id}", err=True)


@subscriptions.command()
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
    _show(found, fields_of(health) | more, as_json=as_json)


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
    _show(changed, as_json=as_json)


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
    _show(changed, as_json=as_json)


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
    _show(changed, as_json=as_json)


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
    _show(changed, as_json=as_json)
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
    _show(removed, as_json=as_json)


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
    _show(changed, as_json=as_json)


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


def _document(item: Subscription) -> dict[str, Any]:
    return {"id": item.id, "state": item.state, **asdict(item), "filter": in_json(item.filter)}


def _show(item: Subscription, health: dict[str, Any] | None = None, *, as_json: bool) -> None:
    document = _document(item) | (health or {})
    if as_json:
        print_json(document)
        return
    document["state"] = _state(item)
    if document.get("held_seconds"):
        left, who = duration(document["held_seconds"]), who_held(document["held_seconds"])
        document["state"] = f"{_state(item)}, held back for another {left} {who}"
    document["tenant"] = _tenant_name(item)
    document["filter"] = (
        json.dumps(document["filter"], ensure_ascii=False, separators=(",", ":")) if item.filter else None
    )
    print_fields({name: _words(value) for name, value in document.items()})
    for warning in formats.warnings_of(item.format, item.url):
        warn(warning)
    if item.scheme == UNSIGNED:
        warn(f"{item.id} is unsigned: its receiver cannot tell our requests from anybody's")
    elif isinstance(item, NewSubscription):
        click.echo("Keep the secret now: it is not shown again.", err=True)
        if item.public_key:
            click.echo("Its receiver verifies with the public key, and needs no secret.", err=True)


def _state(item: Subscription) -> str:
    drops = item.state == "paused" and item.drops_while_paused
    return item.state + ", drops" * drops + ", unsigned" * (item.scheme == UNSIGNED)


def _words(value: Any) -> Any:
    """Return a mapping as NAME=VALUE, as a flag gives it; anything else as it is."""
    return [f"{name}={item}" for name, item in value.items()] if isinstance(value, dict) else value


def _tenant_name(item: Subscription) -> str:
    return "every tenant" if item.tenant == "*" else item.tenant or "-"
