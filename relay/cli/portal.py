"""`relay portal …`: links that let a tenant's own customers into the portal of `relay serve`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from outbox.control import portal_links as operations
from outbox.control.filters import Filters
from outbox.control.portal_links import DEFAULT_EXPIRES, PORTAL_RIGHTS
from relay.cli.options import Moment, after_option, confirm, filters, json_option, yes_option
from relay.cli.output import fields_of, print_fields, print_json, print_json_lines, print_more, print_table
from relay.cli.source import Source, query_of, with_source, with_source_to_change
from relay.client import calls

if TYPE_CHECKING:
    from datetime import datetime

    from outbox.control.portal_links import PortalLink, PortalRight

__all__ = ["portal"]


@click.group()
def portal() -> None:
    """Links into the portal, where a tenant's customers manage their own endpoints (docs/portal.md).

    An application makes them by outbox.portal_url(). Each opens once, and begins a session of eight hours.
    """


@portal.command()
@click.option("--tenant", required=True, metavar="NAME", help="Whose; '' where there are no tenants.")
@click.option(
    "--rights", type=click.Choice(PORTAL_RIGHTS), default="read", show_default=True,
    help="read looks; manage adds, changes, tests and removes endpoints, and replays, too.",
)  # fmt: skip
@click.option("--expires", type=Moment(), metavar="TIME", help="How long it may be opened: 10m, 1h, 7d. [default: 1h]")
@click.option("--person", metavar="NAME", help="Who opens it, for the audit.")
@click.option("--url", metavar="URL", help="Where the portal is. [default: portal_url of the configuration]")
@json_option
@with_source_to_change
def link(
    source: Source, tenant: str, rights: PortalRight, expires: timedelta | datetime | None, person: str | None,
    url: str | None, *, as_json: bool,
) -> None:  # fmt: skip
    """Make a link and print it, this once.

    \b
    Examples:
      relay portal link --tenant acme --url https://hooks.example.com/portal
      relay portal link --tenant acme --rights manage --expires 15m --person alice@acme.example
    """
    if expires is not None and not isinstance(expires, timedelta):
        raise click.UsageError("--expires: is a length of time, such as 15m, 1h or 7d")
    length = expires or DEFAULT_EXPIRES
    seconds = int(length.total_seconds())
    made = source.ask(
        lambda connection: operations.make_portal_link(
            connection, tenant, _base_of(source, url), rights=rights, expires=length, person=person
        ),
        lambda: calls.make_portal_link(tenant=tenant, rights=rights, expires_seconds=seconds, person=person, url=url),
    )
    if as_json:
        print_json(fields_of(made.link) | {"url": made.url})
        return
    click.echo(made.url)
    click.echo("It opens once. Hand it to one person; it is not shown again.", err=True)


def _base_of(source: Source, url: str | None) -> str:
    assert source.database is not None
    base = url or source.database.config.portal_url
    if not base:
        raise click.UsageError("give --url https://…/portal, or portal_url in the configuration (RELAY_PORTAL_URL)")
    return base


@portal.command("list")
@filters("tenant", "limit")
@click.option("--ended", is_flag=True, help="Also those that ended within the last day, or were revoked.")
@after_option
@json_option
@with_source
def list_(source: Source, after: str | None, *, ended: bool, as_json: bool, **given: Any) -> None:
    """List links and the sessions that they began, the newest first. Never their text: only its hash is kept."""
    wanted = Filters(**given)
    found = source.ask(
        lambda connection: operations.list_portal_links(connection, None, wanted, ended=ended, after=after),
        lambda: calls.list_portal_links(**query_of(wanted), ended=ended, after=after),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [
            (item.id, item.tenant, item.rights, item.person, item.opened_at, item.revoked_at or _end(item))
            for item in found
        ]
        columns = ["LINK", "TENANT", "RIGHTS", "PERSON", "OPENED UTC", "ENDS UTC"]
        print_table(columns, rows, flexible=["TENANT", "PERSON"])
    print_more(found)


@portal.command()
@click.argument("link_id", metavar="[LINK]", required=False)
@click.option("--tenant", metavar="NAME", help="Every link and session of this tenant instead.")
@yes_option
@json_option
@with_source_to_change
def revoke(source: Source, link_id: str | None, tenant: str | None, *, yes: bool, as_json: bool) -> None:
    """End a link (lnk_…) and the session that it began, at once; or all of a tenant's."""
    if (link_id is None) is (tenant is None):
        raise click.UsageError("give either a link (lnk_…) or --tenant NAME")
    confirm(f"Revoke {link_id or f'every link of tenant {tenant!r}'}?", yes=yes)
    told = {"revoked": _revoke_of(source, tenant)} if link_id is None else fields_of(_revoke_one(source, link_id))
    if as_json:
        print_json(told)
    else:
        print_fields(told)


def _revoke_of(source: Source, tenant: str | None) -> int:
    assert tenant is not None
    return source.ask(
        lambda connection: operations.revoke_portal_links(connection, tenant),
        lambda: calls.revoke_portal_links(tenant).then(lambda found: found.revoked),
    )


def _revoke_one(source: Source, link_id: str) -> PortalLink:
    return source.ask(
        lambda connection: operations.revoke_portal_link(connection, None, link_id),
        lambda: calls.revoke_portal_link(link_id),
    )


def _end(item: PortalLink) -> datetime:
    return item.session_expires_at or item.expires_at
