"""`relay capture …`: triggers that record what anybody does to a table."""

from __future__ import annotations

import click

from relay.cli.options import Database, after_option, confirm, filters, json_option, with_database, yes_option
from relay.cli.output import escape, fields_of, print_json_lines, print_more, print_table
from relay.operations import table_captures
from relay.operations.table_captures import TableCapture

__all__ = ["capture"]

_name_option = click.option(
    "--name", default="outbox_capture", show_default=True, metavar="NAME", help="Of the trigger: one for each capture."
)


@click.group()
def capture() -> None:
    """Record events of what anybody does to a table's rows, by a trigger in its own transaction (docs/capture.md).

    For tables that others write. An application captures its own classes by outbox.capture(), which knows more.
    """


@capture.command()
@click.argument("table")
@click.option("--created", metavar="TYPE", help="Event of a new row.")
@click.option("--updated", metavar="TYPE", help="Event of a row that was changed.")
@click.option("--deleted", metavar="TYPE", help="Event of a row that was deleted.")
@click.option("--became", multiple=True, metavar="COLUMN=VALUE:TYPE", help="Where a value becomes this. Repeatable.")
@click.option("--key", multiple=True, metavar="COLUMN", help="The event's key. Repeatable. [default: the primary key]")
@click.option("--tenant-column", metavar="COLUMN", help="Whose event it is. [default: tenant '']")
@click.option("--columns", metavar="COLUMN,…", help="What counts as a change, and is in the data. [default: all]")
@_name_option
@click.option("--sql", "as_sql", is_flag=True, help="Print the statement, change nothing.")
@with_database
def install(
    database: Database, table: str, created: str | None, updated: str | None, deleted: str | None,
    became: tuple[str, ...], key: tuple[str, ...], tenant_column: str | None, columns: str | None, name: str,
    *, as_sql: bool,
) -> None:  # fmt: skip
    """Capture TABLE, a name as in SQL: leads, shop.leads, '"Odd Name"'. One event a row and statement.

    Whoever writes to the table has to be allowed to record (grant outbox_app). A capture of the same
    name is replaced. TRUNCATE is not seen.

    \b
    Examples:
      relay capture install shop.leads --created lead.scraped --updated lead.updated
      relay capture install shop.leads --became status=qualified:lead.qualified --sql
    """
    wanted = TableCapture(
        table=table, created=created, updated=updated, deleted=deleted, became=_became(became), key=key,
        tenant_column=tenant_column, columns=_listed(columns), name=name,
    )  # fmt: skip
    with database.transaction() as connection:
        make = table_captures.capture_sql if as_sql else table_captures.install_capture
        statement = make(connection, None, wanted)
    click.echo(f"{statement};" if as_sql else escape(f"captured: {table}, by the trigger {name}"))


def _became(given: tuple[str, ...]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for one in given:
        column, is_given, rest = one.partition("=")
        value, colon, type_ = rest.rpartition(":")
        if not (column and is_given and colon and type_):
            raise click.UsageError(f"--became: {escape(one)} is not like status=qualified:lead.qualified")
        found.setdefault(column, {})[value] = type_
    return found


def _listed(columns: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in columns.split(",") if name.strip()) if columns else ()


@capture.command("list")
@filters("limit")
@after_option
@json_option
@with_database
def list_(database: Database, limit: int, after: str | None, *, as_json: bool) -> None:
    """List the tables that are captured, and what of each."""
    with database.transaction() as connection:
        found = table_captures.list_captures(connection, None, after=after, limit=limit)
    if as_json:
        print_json_lines(fields_of(one) for one in found)
    else:
        rows = [
            (one.table, one.name if one.enabled else f"{one.name} (disabled)", _types(one), ",".join(one.key),
             one.tenant_column or "-", ",".join(one.columns) or "all")
            for one in found
        ]  # fmt: skip
        print_table(["TABLE", "NAME", "TYPES", "KEY", "TENANT", "COLUMNS"], rows, flexible=["TYPES", "COLUMNS"])
    print_more(found)


def _types(one: TableCapture) -> str:
    became = [type_ for values in one.became.values() for type_ in values.values()]
    return ", ".join(type_ for type_ in (one.created, one.updated, one.deleted, *became) if type_)


@capture.command()
@click.argument("table")
@_name_option
@yes_option
@with_database
def remove(database: Database, table: str, name: str, *, yes: bool) -> None:
    """End a capture of TABLE. What it has recorded is delivered all the same.

    \b
    Example:
      relay capture remove shop.leads
    """
    confirm(f"Record nothing of {table} any more?", yes=yes)
    with database.transaction() as connection:
        removed = table_captures.remove_capture(connection, None, table, name)
    if not removed:
        raise click.ClickException(escape(f"{table} has no capture {name}: relay capture list shows those that are"))
    click.echo(escape(f"removed: {table} is not captured by {name} any more"))
