"""`relay subscriptions …`: the functions of outbox.subscriptions, word for word."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from outbox import subscriptions as verbs
from outbox.ids import parse_id
from outbox.subscriptions import NewSubscription, Subscription
from relay.cli.credential_options import credential_options, read_file
from relay.cli.options import (
    Database,
    confirm,
    json_option,
    scheme_option,
    warn,
    with_database,
    with_database_to_change,
    yes_option,
)
from relay.cli.output import print_fields, print_json, print_json_lines, print_table
from relay.cli.probe import check, test
from relay.wording import duration

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["subscriptions"]


class _Pairs(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, separator, content = value.partition("=")
        if not separator:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, content


class _Numbers(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    def __init__(self, name: str, example: str) -> None:
        self.name = name
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        words = [] if value.strip() in ("", "none") else value.split(",")
        if not all(word.strip().isascii() and word.strip().isdigit() for word in words):
            self.fail(f"{value!r} is not a list of {self.name} such as {self._example}, or none", param, ctx)
        return [int(word) for word in words]


_description = click.option("--description", metavar="TEXT", help="For people; at most 2 kB.")
_metadata = click.option(
    "--metadata", type=_Pairs(), multiple=True, metavar="NAME=VALUE", help="For programs; repeatable."
)
_timeout = click.option("--timeout-seconds", type=int, metavar="N", help="Of one attempt, 1 to 300. [default: 15]")
_schedule = click.option(
    "--schedule-seconds",
    type=_Numbers("seconds", "5,300,1800"),
    metavar="N,N,…",
    help="Delays after failures, or none. [default: 75 hours]",
)
_final = click.option(
    "--final-statuses",
    type=_Numbers("statuses", "400,413,422"),
    metavar="N,N,…",
    help="4xx answers that are not tried again, or none. [default: none]",
)
_secret_file = click.option(
    "--secret-file",
    type=click.File(encoding="utf-8-sig"),
    help="Own secret (as the scheme wants it) from a file, - is stdin.",
)
_key_type = click.option(
    "--key-type", type=click.Choice(["hmac", "ed25519"]), help="Of a new secret; ed25519 with scheme standard."
)
_id = click.argument("subscription_id", metavar="SUBSCRIPTION")
_tenant = click.option("--tenant", metavar="NAME", help="Only if it is this tenant's.")


@click.group()
def subscriptions() -> None:
    """Who gets which events where. SUBSCRIPTION is an id, sub_… or the UUID."""


@subscriptions.command()
@click.argument("url")
@click.argument("types", metavar="TYPE...", nargs=-1, required=True)
@click.option("--tenant", default="", metavar="NAME", help="Whose events. [default: no tenant]")
@click.option("--all-tenants", is_flag=True, help="Events of every tenant; for the operator only.")
@_description
@_metadata
@_timeout
@_schedule
@_final
@scheme_option("How to sign. [default: standard]")
@_key_type
@_secret_file
@credential_options()
@json_option
@with_database_to_change
def add(
    database: Database, url: str, types: tuple[str, ...], tenant: str, secret_file: Any, *, all_tenants: bool,
    as_json: bool, credentials: dict[str, Any], **settings: Any,
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
    """
    if all_tenants and tenant:
        raise click.UsageError("--tenant and --all-tenants exclude each other")
    arguments = _given(settings) | credentials | {"secret": _secret_in(secret_file)}
    with database.transaction() as connection:
        if all_tenants:
            made = verbs.add_for_every_tenant(connection, url, types, **arguments)
        else:
            made = verbs.add(connection, url, types, tenant=tenant, **arguments)
    _show(made, as_json=as_json)
    if url.startswith("http://") and not database.config.allow_http:
        warn("this endpoint is http://; the relay sends there only with --allow-http")


@subscriptions.command("list")
@click.option("--tenant", metavar="NAME", help="Only this tenant's.")
@click.option(
    "--state", type=click.Choice(["active", "paused", "disabled", "removed"]), help="[default: all but removed]"
)
@click.option("--type", "type_", metavar="TYPE", help="Only those that get events of this type.")
@click.option("--after", metavar="SUB", help="Go on after this subscription.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@json_option
@with_database
def list_(
    database: Database, tenant: str | None, state: Any, type_: str | None, after: str | None, limit: int, *,
    as_json: bool,
) -> None:  # fmt: skip
    """List subscriptions, oldest first.

    \b
    Examples:
      relay subscriptions list --state disabled
      relay subscriptions list --type order.created --tenant acme --json
    """
    with database.transaction() as connection:
        found = verbs.list(connection, tenant=tenant, state=state, type=type_, after=after, limit=limit)
    if as_json:
        print_json_lines(_document(item) for item in found)
        return
    rows = [(item.id, item.state, _tenant_name(item), item.types, item.url) for item in found]
    print_table(["SUBSCRIPTION", "STATE", "TENANT", "TYPES", "URL"], rows, flexible=["TENANT", "TYPES", "URL"])
    if len(found) == limit:
        click.echo(f"there may be more: --after {found[-1].id}", err=True)


@subscriptions.command()
@_id
@_tenant
@json_option
@with_database
def show(database: Database, subscription_id: str, tenant: str | None, *, as_json: bool) -> None:
    """Show one subscription, its backlog and its last attempt. Never its secret."""
    from relay.operations.stuck import subscription_health

    with database.transaction() as connection:
        found = verbs.get(connection, subscription_id, tenant=tenant)
        health = subscription_health(connection, parse_id("sub", found.id))
    _show(found, health, as_json=as_json)


@subscriptions.command()
@_id
@_tenant
@click.option("--url", metavar="URL", help="Where to send; also what is under way.")
@click.option("--types", metavar="TYPE,TYPE…", help="All types it gets from now on.")
@_description
@_metadata
@_timeout
@_schedule
@_final
@credential_options(removable=True)
@json_option
@with_database_to_change
def update(
    database: Database, subscription_id: str, tenant: str | None, url: str | None, types: str | None, *,
    as_json: bool, credentials: dict[str, Any], **settings: Any,
) -> None:  # fmt: skip
    """Change the fields that are given; the others stay.

    \b
    Example:
      relay subscriptions update sub_… --url https://example.com/new --types 'order.*,user.created'
    """
    given = settings | {"url": url, "types": types.split(",") if types is not None else None}
    changes = _given(given) | credentials
    with database.transaction() as connection:
        changed = verbs.update(connection, subscription_id, tenant=tenant, **changes)
    _show(changed, as_json=as_json)


@subscriptions.command()
@_id
@_tenant
@json_option
@with_database_to_change
def pause(database: Database, subscription_id: str, tenant: str | None, *, as_json: bool) -> None:
    """Stop sending; deliveries gather and wait until resume."""
    with database.transaction() as connection:
        changed = verbs.pause(connection, subscription_id, tenant=tenant)
    _show(changed, as_json=as_json)


@subscriptions.command()
@_id
@_tenant
@click.option("--reason", required=True, metavar="TEXT", help="Why, for everybody who looks; at most 500 bytes.")
@json_option
@with_database_to_change
def disable(database: Database, subscription_id: str, tenant: str | None, reason: str, *, as_json: bool) -> None:
    """Stop sending for a reason, as the relay does when the endpoint answers 410 Gone.

    Deliveries gather and wait until resume, as when it is paused.
    """
    with database.transaction() as connection:
        changed = verbs.disable(connection, subscription_id, tenant=tenant, reason=reason)
    _show(changed, as_json=as_json)


@subscriptions.command()
@_id
@_tenant
@json_option
@with_database_to_change
def resume(database: Database, subscription_id: str, tenant: str | None, *, as_json: bool) -> None:
    """Send again, beginning with what gathered, whether it was paused, disabled or held back."""
    with database.transaction() as connection:
        changed = verbs.resume(connection, subscription_id, tenant=tenant)
    _show(changed, as_json=as_json)


@subscriptions.command()
@_id
@_tenant
@yes_option
@json_option
@with_database_to_change
def remove(database: Database, subscription_id: str, tenant: str | None, *, yes: bool, as_json: bool) -> None:
    """End it for good: what it had still to get is cancelled. Dead letters stay."""
    from relay.operations.stuck import subscription_health

    with database.transaction() as connection:
        found = verbs.get(connection, subscription_id, tenant=tenant)
        outstanding = subscription_health(connection, parse_id("sub", found.id))["outstanding"]
    confirm(f"Remove {found.id} ({found.url}) and cancel its {outstanding} outstanding deliveries?", yes=yes)
    with database.transaction() as connection:
        removed = verbs.remove(connection, subscription_id, tenant=tenant)
    _show(removed, as_json=as_json)


@subscriptions.command("rotate-secret")
@_id
@_tenant
@_secret_file
@scheme_option("Sign by this from now on. [default: as before]")
@_key_type
@click.option(
    "--overlap-seconds",
    type=int,
    metavar="N",
    help="How long the old ones sign along. [default: 86400, or 0 where a request carries one signature]",
)
@json_option
@with_database_to_change
def rotate_secret(
    database: Database, subscription_id: str, tenant: str | None, secret_file: Any, *, as_json: bool, **settings: Any
) -> None:
    """Give it a new signing secret and print that, this once. Old ones sign along for a while.

    \b
    Examples:
      relay subscriptions rotate-secret sub_…
      relay subscriptions rotate-secret sub_… --overlap-seconds 0      the old one leaked
      relay subscriptions rotate-secret sub_… --scheme stripe          its receiver has moved
    """
    secret = _secret_in(secret_file)
    with database.transaction() as connection:
        changed = verbs.rotate_secret(connection, subscription_id, tenant=tenant, secret=secret, **_given(settings))
    _show(changed, as_json=as_json)


subscriptions.add_command(test)
subscriptions.add_command(check)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as arguments of outbox.subscriptions."""
    given = {name: value for name, value in settings.items() if value not in (None, ())}
    if "metadata" in given:
        given["metadata"] = dict(given["metadata"])
    return given


def _secret_in(file: TextIO | None) -> str | None:
    return None if file is None else read_file("secret_file", file).strip()


def _document(item: Subscription) -> dict[str, Any]:
    return {"id": item.id, "state": item.state, **asdict(item)}


def _show(item: Subscription, health: dict[str, Any] | None = None, *, as_json: bool) -> None:
    document = _document(item) | (health or {})
    if as_json:
        print_json(document)
        return
    if document.get("held_seconds"):
        left = duration(document["held_seconds"])
        document["state"] = f"{item.state}, held back for another {left} by the receiver's Retry-After"
    document["tenant"] = _tenant_name(item)
    document["metadata"] = [f"{name}={value}" for name, value in item.metadata.items()]
    print_fields(document)
    if isinstance(item, NewSubscription):
        click.echo("Keep the secret now: it is not shown again.", err=True)
        if item.public_key:
            click.echo("Its receiver verifies with the public key, and needs no secret.", err=True)


def _tenant_name(item: Subscription) -> str:
    return "every tenant" if item.tenant == "*" else item.tenant or "-"
