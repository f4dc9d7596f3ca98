"""`relay tokens …`: who may call the HTTP API."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from outbox.control.filters import Filters
from relay.cli.options import after_option, confirm, filters, json_option, yes_option
from relay.cli.output import fields_of, print_fields, print_json, print_json_lines, print_more, print_table
from relay.cli.source import Source, query_of, with_source, with_source_to_change
from relay.cli.subscription_options import words_type
from relay.client import calls
from relay.operations import tokens as operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.operations.tokens import Token

__all__ = ["tokens"]


@click.group()
def tokens() -> None:
    """Who may call the HTTP API of relay serve, and what each may do.

    \b
    read     look at everything
    write    record events; add, change, pause, test and remove subscriptions
    operate  retry, cancel, replay, purge; stop all sending
    admin    tokens, and the limits of tenants
    """


@tokens.command()
@click.argument("name")
@click.option("--rights", type=words_type, required=True, metavar="RIGHT,RIGHT…", help="read, write, operate, admin.")
@click.option("--tenant", metavar="NAME", help="Of this tenant; '' where there are no tenants.")
@click.option("--all-tenants", is_flag=True, help="Of every tenant: for the operator.")
@click.option("--expires-days", type=click.IntRange(1, 36_500), metavar="N", help="It ends then. [default: never]")
@json_option
@with_source_to_change
def create(
    source: Source, name: str, rights: Sequence[str], tenant: str | None, expires_days: int | None, *,
    all_tenants: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a token and print it, this once. NAME says what it is for.

    \b
    Examples:
      relay tokens create dashboard --rights read,write,operate,admin --all-tenants
      relay tokens create 'acme portal' --rights read,write --tenant acme --expires-days 90
    """
    if all_tenants is (tenant is not None):
        raise click.UsageError("give either --tenant NAME ('' where there are no tenants) or --all-tenants")
    if all_tenants:
        _require_operator(source)
    expires = None if expires_days is None else timedelta(days=expires_days)
    made = source.ask(
        lambda connection: operations.create(connection, None, name=name, rights=rights, whose=tenant, expires=expires),
        lambda: calls.make_token(name, rights, tenant=tenant, expires_days=expires_days),
    )
    if as_json:
        print_json(fields_of(made.token) | {"token": made.text})
        return
    print_fields({**_told(made.token), "token": made.text})
    click.echo("Keep the token now: it is not shown again.", err=True)


def _require_operator(source: Source) -> None:
    """Refuse where the API is asked by a tenant's token: it makes tokens of its own tenant, whatever is asked."""
    own = source.ask(lambda _: None, lambda: calls.get_own_token().then(lambda token: token.tenant))
    if own is not None:
        raise click.UsageError(f"--all-tenants: your token is of tenant {own!r}; give --tenant {own!r}")


@tokens.command("list")
@filters("tenant", "limit")
@click.option("--revoked", is_flag=True, help="Also those that are revoked or expired.")
@after_option
@json_option
@with_source
def list_(source: Source, after: str | None, *, revoked: bool, as_json: bool, **given: Any) -> None:
    """List tokens, the newest first. Never their text: only its hash is kept."""
    wanted = Filters(**given)
    found = source.ask(
        lambda connection: operations.list_tokens(connection, None, wanted, revoked=revoked, after=after),
        lambda: calls.list_tokens(**query_of(wanted), revoked=revoked, after=after),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [
            (item.id, item.name, _whose(item), item.rights, item.last_used_at, item.revoked_at or item.expires_at)
            for item in found
        ]
        columns = ["TOKEN", "NAME", "TENANT", "RIGHTS", "LAST USED UTC", "ENDS UTC"]
        print_table(columns, rows, flexible=["NAME", "TENANT", "RIGHTS"])
    print_more(found)


@tokens.command()
@click.argument("token_id", metavar="TOKEN")
@yes_option
@json_option
@with_source_to_change
def revoke(source: Source, token_id: str, *, yes: bool, as_json: bool) -> None:
    """End a token (tok_…) at once; what it made stays."""
    confirm(f"Revoke {token_id}?", yes=yes)
    ended = source.ask(
        lambda connection: operations.revoke(connection, None, token_id), lambda: calls.revoke_token(token_id)
    )
    if as_json:
        print_json(ended)
    else:
        print_fields(_told(ended))


def _told(token: Token) -> dict[str, Any]:
    return fields_of(token) | {"tenant": _whose(token)}


def _whose(token: Token) -> str:
    return "every tenant" if token.tenant is None else token.tenant or "-"
