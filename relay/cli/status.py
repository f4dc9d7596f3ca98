"""`relay status`: all that a person needs to know first, on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from relay.cli.findings import in_words
from relay.cli.options import Database, json_option, with_database
from relay.cli.output import escape, fields_of, host_of, print_fields, print_json, print_table
from relay.operations.status.status import status as status_of
from relay.operations.times import duration

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from relay.operations.secrets import SecretsAtRest
    from relay.operations.status.documents import Count, Named, Newest, Status, SubscriptionHealth

__all__ = ["status"]


@click.command()
@json_option
@with_database
def status(database: Database, *, as_json: bool) -> None:
    """What is stuck, why, and was anything lost?

    Counts above 10,000 are estimates and carry a ~. Quick at any backlog.
    """
    with database.transaction() as connection:
        found = status_of(connection, None)
    lines = [in_words(finding) for finding in found.findings]
    if as_json:
        print_json(_document(found, lines))
        return
    _print_attention(lines)
    print_fields(_fields(found))
    if found.stuck:
        click.echo("\nBehind or failing")
        rows = [
            (item.subscription_id, health.due, health.outstanding, health.dead, _why(health), host_of(item.url))
            for item in found.stuck
            for health in [item.health]
        ]
        print_table(["SUBSCRIPTION", "DUE", "ALL", "DEAD", "LAST ANSWER", "TO"], rows, flexible=["LAST ANSWER", "TO"])


def _print_attention(lines: list[str]) -> None:
    if not lines:
        click.echo(click.style("Nothing is stuck.", fg="green", bold=True))
    for line in lines:
        click.echo(click.style("! ", fg="red", bold=True) + escape(line))
    click.echo()


def _fields(found: Status) -> dict[str, Any]:
    deliveries, dead, attempts = found.deliveries, found.dead_letters, found.attempts
    unmatched, unresolved = found.unmatched, found.unresolved
    reasons = ", ".join(f"{reason} {count}" for reason, count in dead.reasons.items())
    subscriptions = fields_of(found.subscriptions)
    return {
        "pending": _with_age(found.pending.count, found.pending.oldest_seconds),
        "due": _with_age(deliveries.due, deliveries.oldest_due_seconds)
        + (f", {deliveries.closed} to paused, disabled or held ones" if deliveries.closed.value else ""),
        "waiting": f"{deliveries.waiting} for a retry or their time",
        "leased": f"{deliveries.leased} being sent",
        "dead letters": f"{dead.count}" + (f" ({reasons})" if reasons else ""),
        "last attempt": _when(attempts.last_at, found.at),
        "last delivered": _when(attempts.last_delivered_at, found.at),
        "no subscriber": f"{unmatched.count:,} of the last {unmatched.of_last:,} events"
        + (f" ({', '.join(unmatched.types[:5])})" if unmatched.types else ""),
        "nowhere": f"{unresolved.count:,} of the last {unresolved.of_last:,} events (neither pending nor resolved)",
        "secrets": _secrets(found.secrets),
        "subscriptions": ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in subscriptions.items())
        + (f", {found.held.count} held back by their receivers" if found.held.count else ""),
        "relay": f"{found.relay_connections} connections, schema version {found.schema_version}",
    }


def _secrets(found: SecretsAtRest) -> str:
    sealed = found.count - found.in_clear
    return f"{found.in_clear:,} in clear, {sealed:,} sealed" + (
        f", {found.sealed_to_older_keys:,} of them to another key than the newest" if found.sealed_to_older_keys else ""
    )


def _with_age(count: Count, seconds: float | None) -> str:
    return f"{count}" if seconds is None else f"{count}, the oldest for {duration(seconds)}"


def _when(moment: datetime | None, now: datetime) -> str:
    return "-" if moment is None else f"{duration((now - moment).total_seconds())} ago"


def _why(health: SubscriptionHealth) -> str:
    return health.last_error or str(health.last_status or health.last_outcome or "not attempted yet")


# The names of two fields in JSON are older than those of the document.
_NAMES = {"unresolved": "nowhere", "findings": "attention"}


def _document(found: Status, lines: list[str]) -> dict[str, Any]:
    """Return the status as JSON has it: findings in words, and a subscription's health among its other fields."""
    values = fields_of(found) | {
        "disabled": _newest(found.disabled),
        "held": _newest(found.held),
        "stuck": _flat(found.stuck),
        "findings": lines,
    }
    return {_NAMES.get(name, name): value for name, value in values.items()}


def _newest(found: Newest[Any]) -> dict[str, Any]:
    return fields_of(found) | {"named": _flat(found.named)}


def _flat(named: Iterable[Named]) -> list[dict[str, Any]]:
    return [fields_of(item, "health") | fields_of(item.health) for item in named]
