"""`relay catalogue …`: the event types that applications declare, and whether a change of them breaks receivers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from outbox.control import catalogue as operations
from outbox.control.known_types import known_types, show_type
from relay.cli.declared_catalogue import declared_in, module_option
from relay.cli.options import (
    Database,
    after_option,
    filters,
    json_option,
    with_database,
    with_database_to_change,
)
from relay.cli.output import escape, fields_of, print_fields, print_json, print_json_lines, print_more, print_table
from relay.cli.source import Source, with_source
from relay.client import calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outbox.control.catalogue import CatalogueChange, TypeChange
    from outbox.control.known_types import KnownTypeDetails
    from outbox.event_types.declared_type import DeclaredType

__all__ = ["catalogue"]

FORMATS = ("json-schema", "asyncapi", "markdown")


@click.group()
def catalogue() -> None:
    """The types of events: what is declared of each, and what was seen (docs/catalogue.md).

    An application declares them by outbox.EventType. `check` in its tests tells of a change that breaks receivers;
    `push`, when it is deployed, stores them for dashboard, portal and API.
    """


_prune_option = click.option("--prune", is_flag=True, help="Remove what is retired, in place of keeping it.")


@catalogue.command()
@module_option
@_prune_option
@json_option
@with_database
def check(database: Database, module: str | None, *, prune: bool, as_json: bool) -> int:
    """Compare what a module declares with what is stored; exit code 1: a change breaks receivers.

    \b
    Example:
      relay catalogue check -m myapp.events
    """
    declared = declared_in(_required(module))
    with database.transaction() as connection:
        change = operations.compare_catalogue(connection, None, declared, prune=prune)
    _show_change(change, "would be ", as_json=as_json)
    return 1 if change.breaking else 0


@catalogue.command()
@module_option
@click.option(
    "--dry-run", is_flag=True, help="Say what would change, write nothing; exit code 4: it would change something."
)
@click.option("--allow-breaking", is_flag=True, help="Store changes that break receivers; each needs a raised version.")
@_prune_option
@json_option
@with_database_to_change
def push(
    database: Database, module: str | None, *, dry_run: bool, allow_breaking: bool, prune: bool, as_json: bool
) -> int:
    """Store what a module declares, as a whole or not at all. Types that are gone are kept as retired.

    \b
    Examples:
      relay catalogue push -m myapp.events --dry-run
      relay catalogue push -m myapp.events
      relay catalogue push -m myapp.events:internal --allow-breaking
    """
    declared = declared_in(_required(module))
    with database.transaction() as connection:
        if dry_run:
            change = operations.compare_catalogue(connection, None, declared, prune=prune)
        else:
            change = operations.push_catalogue(connection, None, declared, allow_breaking=allow_breaking, prune=prune)
    _show_change(change, "would be " if dry_run else "", as_json=as_json)
    return 4 if dry_run and not change.is_empty else 0


@catalogue.command("list")
@filters("tenant", "limit")
@after_option
@json_option
@with_source
def list_(source: Source, tenant: str | None, limit: int, after: str | None, *, as_json: bool) -> None:
    """List event types by name: those that are declared, and those that were seen; with --tenant, of its events."""
    if tenant is not None:
        source.refuse_by_api("--tenant", "a token's own tenant is asked")
    found = source.ask(
        lambda connection: known_types(connection, tenant, after=after, limit=limit),
        lambda: calls.get_event_types(after=after, limit=limit),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [
            (one.type, one.version, _state(one.retired_at, one.deprecated, one.catalogue), one.delivered, one.last_at,
             one.description)
            for one in found
        ]  # fmt: skip
        columns = ["TYPE", "VERSION", "STATE", "DELIVERED", "LAST UTC", "DESCRIPTION"]
        print_table(columns, rows, flexible=["TYPE", "DESCRIPTION"])
    print_more(found)


@catalogue.command()
@click.argument("name", metavar="TYPE")
@json_option
@with_source
def show(source: Source, name: str, *, as_json: bool) -> None:
    """Show one event type: its description, the parts of its data, and an example."""
    found = source.ask(lambda connection: show_type(connection, None, name), lambda: calls.get_event_type(name))
    if as_json:
        print_json(found)
    else:
        _show(found)


@catalogue.command()
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="json-schema", show_default=True, help="Of what kind."
)
@click.option("--title", default="Events", show_default=True, help="Of the document.")
@click.option("--document-version", default="1.0.0", show_default=True, help="Of an AsyncAPI document.")
@module_option
@with_database
def export(database: Database, form: str, title: str, document_version: str, module: str | None) -> None:
    """Print the catalogue as a document for receivers: what is stored, or what a module declares.

    \b
    Examples:
      relay catalogue export --format asyncapi > asyncapi.json
      relay catalogue export --format markdown -m myapp.events > events.md
    """
    if module is not None:
        types: Sequence[DeclaredType] = declared_in(module).types
    else:
        with database.transaction() as connection:
            types = [one for one in operations.stored_types(connection, None) if one.retired_at is None]
    click.echo(_document(types, form, title, document_version), nl=False)


def _document(types: Sequence[DeclaredType], form: str, title: str, version: str) -> str:
    from relay.operations.type_export.asyncapi import asyncapi_document
    from relay.operations.type_export.json_schema import json_schema_document
    from relay.operations.type_export.markdown import markdown_page

    if form == "markdown":
        return markdown_page(types, title)
    made = asyncapi_document(types, title, version) if form == "asyncapi" else json_schema_document(types, title)
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _required(module: str | None) -> str:
    if module is None:
        raise click.UsageError("give -m MODULE, the Python module that declares the event types")
    return module


_SIGNS = {"added": "+", "changed": "~", "restored": "~", "retired": "-", "removed": "-"}


def _show_change(change: CatalogueChange, would: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**fields_of(change), "applied": not would, "breaking": [one.type for one in change.breaking]})
        return
    for one in change.changes:
        _show_type(one)
    if change.closed is not None:
        click.echo(f"~ the catalogue is {'closed' if change.closed else 'open'}")
    counts = {kind: sum(one.change == kind for one in change.changes) for kind in _SIGNS}
    told = [f"{count} {would}{kind}" for kind, count in counts.items() if count]
    broken = [f"{len(change.breaking)} of them breaking"] if change.breaking else []
    nothing = [] if change.closed is not None else ["nothing to do"]
    click.echo(", ".join([*(told or nothing), *broken, f"{change.unchanged} unchanged"]))


def _show_type(one: TypeChange) -> None:
    click.echo(escape(f"{_SIGNS[one.change]} {one.type}: {one.change}{' (breaking)' if one.breaking else ''}"))
    for each in one.differences:
        click.echo(escape(f"    {'breaking' if each.breaking else 'compatible'}  {each}"))


def _state(retired_at: object, deprecated: str | None, declared: str | None) -> str:
    if retired_at is not None:
        return "retired"
    return "deprecated" if deprecated else "declared" if declared else "seen"


def _show(found: KnownTypeDetails) -> None:
    told: dict[str, Any] = fields_of(found, "json_schema", "example", "parts", "seen")
    print_fields({name: value for name, value in told.items() if value not in (None, "")})
    if found.parts:
        click.echo()
        rows = [(one.place, one.kind, "yes" if one.required else "", one.description) for one in found.parts]
        print_table(["FIELD", "TYPE", "ALWAYS", "DESCRIPTION"], rows, flexible=["DESCRIPTION", "TYPE"])
    example = found.example or (found.seen and found.seen.payload)
    if example:
        click.echo("\nExample" if found.example else "\nNewest event")
        click.echo(escape(example))
