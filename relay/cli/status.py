"""`relay status`: one screen for three in the morning."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relay.cli.options import Database, json_option, with_database
from relay.cli.output import print_fields, print_json, print_table
from relay.cli.parts import host_of
from relay.operations.status.status import Count
from relay.operations.status.status import status as status_of
from relay.operations.wording import duration, escaped

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["status"]


@click.command()
@json_option
@with_database
def status(database: Database, *, as_json: bool) -> None:
    """What is stuck, why, and was anything lost?

    Counts above 10,000 are estimates and carry a ~. Quick at any backlog.
    """
    with database.transaction() as connection:
        found = status_of(connection)
    if as_json:
        print_json(_plain(found))
        return
    _print_attention(found["attention"])
    print_fields(_fields(found))
    if found["stuck"]:
        click.echo("\nBehind or failing")
        rows = [
            (item["subscription_id"], item["due"], item["outstanding"], item["dead"], _why(item), host_of(item["url"]))
            for item in found["stuck"]
        ]
        print_table(["SUBSCRIPTION", "DUE", "ALL", "DEAD", "LAST ANSWER", "TO"], rows, flexible=["LAST ANSWER", "TO"])


def _print_attention(lines: list[str]) -> None:
    if not lines:
        click.echo(click.style("Nothing is stuck.", fg="green", bold=True))
    for line in lines:
        click.echo(click.style("! ", fg="red", bold=True) + escaped(line))
    click.echo()


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    deliveries, dead, attempts = found["deliveries"], found["dead_letters"], found["attempts"]
    subscriptions, unmatched, nowhere = found["subscriptions"], found["unmatched"], found["nowhere"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in dead["reasons"].items())
    return {
        "pending": _with_age(found["pending"]["count"], found["pending"]["oldest_seconds"]),
        "due": _with_age(deliveries["due"], deliveries["oldest_due_seconds"])
        + (f", {deliveries['closed']} to paused, disabled or held ones" if deliveries["closed"].value else ""),
        "waiting": f"{deliveries['waiting']} for a retry or their time",
        "leased": f"{deliveries['leased']} being sent",
        "dead letters": f"{dead['count']}" + (f" ({reasons})" if reasons else ""),
        "last attempt": _when(attempts["last_at"], found["at"]),
        "last delivered": _when(attempts["last_delivered_at"], found["at"]),
        "no subscriber": f"{unmatched['count']:,} of the last {unmatched['of_last']:,} events"
        + (f" ({', '.join(unmatched['types'][:5])})" if unmatched["types"] else ""),
        "nowhere": f"{nowhere['count']:,} of the last {nowhere['of_last']:,} events (neither pending nor resolved)",
        "secrets": _secrets(found["secrets"]),
        "subscriptions": ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in subscriptions.items())
        + (f", {found['held']['count']} held back by their receivers" if found["held"]["count"] else ""),
        "relay": f"{found['relay_connections']} connections, schema version {found['schema_version']}",
    }


def _secrets(found: dict[str, Any]) -> str:
    sealed = found["count"] - found["in_clear"]
    return f"{found['in_clear']:,} in clear, {sealed:,} sealed" + (
        f", {found['sealed_to_older_keys']:,} of them to another key than the newest"
        if found["sealed_to_older_keys"]
        else ""
    )


def _with_age(count: Count, seconds: float | None) -> str:
    return f"{count}" if seconds is None else f"{count}, the oldest for {duration(seconds)}"


def _when(moment: datetime | None, now: datetime) -> str:
    return "-" if moment is None else f"{duration((now - moment).total_seconds())} ago"


def _why(item: dict[str, Any]) -> str:
    return item["last_error"] or str(item["last_status"] or item["last_outcome"] or "not attempted yet")


def _plain(value: Any) -> Any:
    """Return the document with each count as an object of its value and whether it is exact."""
    if isinstance(value, Count):
        return asdict(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
