"""`relay migrate`: the schema."""

from __future__ import annotations

import click

from outbox import schema
from relay.cli.options import Database, with_database

__all__ = ["migrate"]


@click.command()
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL instead of running it; needs no database.")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 where the database differs.")
@with_database
def migrate(database: Database, *, as_sql: bool, check: bool) -> int:
    """Create or update the schema outbox. Safe to run twice, and from two machines at once.

    \b
    Examples:
      relay migrate
      relay migrate --sql > outbox.sql      to read first, or to run by hand
      relay migrate --check                 in CI: has somebody changed it?
    """
    if as_sql:
        click.echo(schema.render_sql(), nl=False)
        return 0
    return _check(database) if check else _apply(database)


def _apply(database: Database) -> int:
    from relay.operations.connection import make_engine

    with make_engine(database.config).connect() as connection:
        applied = schema.migrate(connection)
    for migration in applied:
        click.echo(f"applied {migration.version:04} {migration.name}")
    if not applied:
        click.echo("the schema is up to date")
    return 0


def _check(database: Database) -> int:
    with database.transaction() as connection:
        differences = [*schema.differences(connection), *schema.findings(connection)]
    for difference in differences:
        click.echo(difference)
    if not differences:
        click.echo("the schema is as it should be")
    return 1 if differences else 0
