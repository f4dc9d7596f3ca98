"""`relay subscriptions apply` and `export`: subscriptions from a file, and back into one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay.cli.options import (
    Database,
    confirm,
    json_option,
    warn,
    with_database,
    with_database_to_change,
    yes_option,
)
from relay.cli.output import escape, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.operations.subscription_file.document import Document
    from relay.operations.subscription_file.plan import Plan, Step

__all__ = ["apply", "export"]

WOULD_CHANGE = 4
"""The exit code of a dry run that would change something."""


@click.command()
@click.option("-f", "--file", "name", required=True, metavar="FILE", help="The file, TOML; - is stdin.")
@click.option("--dry-run", is_flag=True, help="Show the plan, write nothing; exit code 4: it would change something.")
@click.option("--prune", is_flag=True, help="Remove what the file's manager made and the file does not declare.")
@yes_option
@json_option
@with_database_to_change
def apply(database: Database, name: str, *, dry_run: bool, prune: bool, yes: bool, as_json: bool) -> int:
    """Make subscriptions what a file says: the plan is shown, then carried out as a whole or not at all.

    A field that the file leaves out gets its default. Secrets stand in the file as { env = "NAME" } or
    { file = "PATH" }, never as text. What others made is never removed.

    \b
    Examples:
      relay subscriptions apply -f subs.toml --dry-run     0: nothing to do, 4: it would change something
      relay subscriptions apply -f subs.toml
      relay subscriptions apply -f subs.toml --prune --yes
    """
    from relay.operations.subscription_file.apply import apply_plan, plan_document

    document = _read(name)
    with database.transaction() as connection:
        plan = plan_document(connection, None, document, name, prune=prune)
    if dry_run or plan.is_empty:
        _show(plan, plan.steps, "would be " if dry_run else "", as_json=as_json)
        return WOULD_CHANGE if not plan.is_empty else 0
    if removed := plan.count("remove"):
        if not as_json and not yes:
            _show(plan, plan.steps, "would be ", as_json=False)
        confirm(f"Remove {removed} subscriptions and cancel what they had still to get?", yes=yes)
    with database.transaction() as connection:
        steps = apply_plan(connection, None, document, plan, name)
    _show(plan, steps, "", as_json=as_json)
    return 0


@click.command()
@click.option("--tenant", metavar="NAME", help="Only this tenant's.")
@click.option("--manager", metavar="NAME", help="Whose file it is: what it made, and what nobody manages.")
@with_database
def export(database: Database, tenant: str | None, manager: str | None) -> None:
    """Print a file that declares what there is; applied, it changes nothing. What is secret is kept, not written.

    \b
    Example:
      relay subscriptions export --tenant acme > subs.toml
    """
    from relay.operations.subscription_file.export import export_subscriptions

    with database.transaction() as connection:
        text, unnamed = export_subscriptions(connection, tenant, manager=manager)
    click.echo(text, nl=False)
    if unnamed:
        warn(f"{unnamed} subscriptions have no name and are left out; relay subscriptions update SUB --name NAME")


def _read(name: str) -> Document:
    from relay.operations.subscription_file.document import read_document
    from relay.operations.subscription_file.references import Place

    try:
        with click.open_file(name, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise click.UsageError(f"--file: cannot read {name}: {reason}") from None
    directory = Path() if name == "-" else Path(name).parent
    return read_document(text, name, Place(os.environ, directory))


def _show(plan: Plan, steps: Sequence[Step], would: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"manager": plan.manager, "applied": not would, "steps": steps})
        return
    for step in steps:
        if step.action != "unchanged":
            _show_step(step)
    counts = [(action, plan.count(action)) for action in ("create", "change", "remove")]
    told = [f"{count} {would}{_DONE[action]}" for action, count in counts if count]
    click.echo(", ".join([*(told or ["nothing to do"]), f"{plan.count('unchanged')} unchanged"]))


_DONE = {"create": "created", "change": "changed", "remove": "removed"}
_SIGNS = {"create": "+", "change": "~", "remove": "-", "left": "?"}


def _show_step(step: Step) -> None:
    whose = {"": "", "*": ", every tenant"}.get(step.tenant, f", tenant {step.tenant}")
    more = ": not in the file; --prune removes it" if step.action == "left" else ""
    named = f" ({step.id})" if step.id is not None else ""
    click.echo(escape(f"{_SIGNS[step.action]} {step.action} {step.name}{named}{whose}{more}"))
    for one in step.changes:
        before = f"{one.before} → " if step.action == "change" and one.before else "none → " * (step.action == "change")
        click.echo(escape(f"    {one.field}: {before}{one.after or 'none'}"))
