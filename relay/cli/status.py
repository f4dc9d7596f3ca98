"""`relay status`: all that a person needs to know first, on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outbox.control.times import duration, rough, utc
from relay.cli.failures import explain
from relay.cli.findings import in_words
from relay.cli.options import json_option
from relay.cli.output import escape, fields_of, host_of, print_fields, print_json, print_table
from relay.cli.source import Source, with_source
from relay.client import calls
from relay.operations.status.documents import CANCELLED_DAYS
from relay.operations.status.status import status as status_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from outbox.control.findings import Finding
    from relay.operations.secrets import SecretsAtRest
    from relay.operations.status.breakers import NamedBreaker
    from relay.operations.status.documents import (
        Count,
        Deliveries,
        Limits,
        Named,
        Newest,
        Status,
        SubscriptionHealth,
    )
    from relay.operations.status.running import RelayProcess, Running

__all__ = ["status"]


@click.command()
@json_option
@click.option("--check", is_flag=True, help="For monitors: a line for each problem; exit 0 (none), 1, 3 (not known).")
@with_source
def status(source: Source, *, as_json: bool, check: bool) -> None:
    """Tell what is stuck, why, and whether anything was lost.

    Counts are exact up to 10,000. Quick at any backlog.
    """
    found = _read_to_check(source) if check else _read(source)
    problems = [finding for finding in found.findings if finding.severity == "problem"]
    if as_json:
        print_json(_document(found))
    elif check:
        click.echo("\n".join(escape(in_words(finding)) for finding in problems) or "nothing needs a person")
    else:
        _print(found)
    if check and problems:
        raise SystemExit(1)


def _read(source: Source) -> Status:
    return source.ask(lambda connection: status_of(connection, None), calls.get_status)


def _read_to_check(source: Source) -> Status:
    """Read; whatever keeps us from knowing ends with 3, but a wrong configuration with 2, as for every command."""
    try:
        return _read(source)
    except Exception as error:
        code, line = explain(error)
        click.echo(escape(line), err=True)
        raise SystemExit(3 if code == 1 else code) from error


def _print(found: Status) -> None:
    _print_findings(found.findings)
    print_fields(_fields(found))
    _print_relays(found.running.relays)
    if found.stuck:
        click.echo("\nBehind or failing")
        rows = [
            (
                item.subscription_id,
                _called(item),
                *map(_up_to_1000, (health.due, health.outstanding, health.dead)),
                *(_why(health), host_of(item.url)),
            )
            for item in found.stuck
            for health in [item.health]
        ]
        columns = ["SUBSCRIPTION", "NAME", "DUE", "ALL", "DEAD", "LAST ANSWER", "TO"]
        print_table(columns, rows, flexible=["NAME", "LAST ANSWER", "TO"])


def _print_findings(findings: Iterable[Finding]) -> None:
    marks = {"problem": click.style("! ", fg="red", bold=True), "note": click.style("- ", fg="yellow")}
    for finding in findings:
        click.echo(marks[finding.severity] + escape(in_words(finding)))
    if not findings:
        click.echo(click.style("Nothing is stuck.", fg="green", bold=True))
    click.echo()


def _print_relays(relays: Iterable[RelayProcess]) -> None:
    if not relays:
        return
    click.echo("\nRelays")
    rows = [
        (
            *(relay.host, relay.pid, relay.version, relay.processes, duration(relay.running_seconds), relay.leased),
            f"{duration(relay.seen_seconds)} ago" + ("" if relay.alive else ", silent"),
            ", ".join(relay.key_ids) or "-",
        )
        for relay in relays
    ]
    columns = ["HOST", "PID", "VERSION", "PROCESSES", "SINCE", "LEASED", "LAST SIGN", "KEYS"]
    print_table(columns, rows, flexible=["HOST", "KEYS"])


def _fields(found: Status) -> dict[str, Any]:
    deliveries, dead, attempts = found.deliveries, found.dead_letters, found.attempts
    unmatched, unresolved = found.unmatched, found.unresolved
    reasons = ", ".join(f"{reason} {count}" for reason, count in dead.reasons.items())
    subscriptions = fields_of(found.subscriptions)
    return {
        "sending": _sending(found),
        "pending": _with_age(found.pending.count, found.pending.oldest_seconds),
        "due": _with_age(deliveries.open, deliveries.oldest_due_seconds)
        + (f"; {deliveries.closed} for paused, disabled, held or failing ones" if deliveries.closed.value else ""),
        "waiting": f"{deliveries.waiting} for a retry or their time"
        + (f", {deliveries.parked} behind another of their key" if deliveries.parked.value else ""),
        "leased": _leased(deliveries),
        "dead letters": f"{dead.count}" + (f" ({reasons})" if reasons else ""),
        "cancelled": f"{found.cancelled:,} by hand in the last {CANCELLED_DAYS} days",
        "last attempt": _when(attempts.last_at, found.at),
        "last delivered": _when(attempts.last_delivered_at, found.at),
        "no subscriber": f"{unmatched.count:,} of the last {unmatched.of_last:,} events"
        + (f" ({', '.join(unmatched.types[:5])})" if unmatched.types else ""),
        "unresolved": f"{unresolved.count:,} of the last {unresolved.of_last:,} events (neither pending nor resolved)",
        "secrets": _secrets(found.secrets),
        "subscriptions": ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in subscriptions.items())
        + (f", {found.held.count} held back by their receivers" if found.held.count else "")
        + (f", {found.breakers.open:,} not sent to while they fail" if found.breakers.open else ""),
        "limits": _limits(found.limits),
        "relays": _relays(found.running),
        "transactions": _transactions(found.running),
        "schema": f"version {found.schema_version}",
    }


def _sending(found: Status) -> str:
    if found.home.is_copied:
        return "nothing, from a copy of a database"
    return "goes on" if found.sending.paused_at is None else f"paused since {utc(found.sending.paused_at)}"


def _leased(deliveries: Deliveries) -> str:
    left = f", {deliveries.left} left by relays that are gone" if deliveries.left.value else ""
    ended = f", {deliveries.ended} whose lease ended, to be claimed again" if deliveries.ended.value else ""
    return f"{deliveries.leased} being sent{left}{ended}"


def _limits(found: Limits) -> str:
    limited = f"{found.rates:,} subscriptions with a rate, {found.caps:,} with a cap, {found.tenants:,} tenants"
    slowed = ", ".join(f"{item.subscription_id} to {rough(item.slowed_to)}/s" for item in found.slowed.named)
    return limited + (f"; {found.slowed.count:,} slowed by their receivers: {slowed}" if slowed else "")


def _relays(running: Running) -> str:
    alive = running.alive
    silent = len(running.relays) - len(alive)
    runs = len({relay.run_id for relay in alive})
    processes = "1 process" if len(alive) == 1 else f"{len(alive)} processes"
    lives = f"{processes} of {runs} relay{'s' if runs > 1 else ''}" if alive else "none runs"
    return lives + (f", {silent} silent" if silent else "")


def _transactions(running: Running) -> str:
    hidden = f" ({running.hidden_sessions} of other roles are not visible: grant pg_read_all_stats)"
    younger = ", ".join(
        f"{one.gid or f'pid {one.pid}'} ({one.application_name or one.role}, {one.state}) for {duration(one.seconds)}"
        for one in running.younger_transactions
    )
    return (
        f"{len(running.transactions) or 'none'} open for more than 10 minutes"
        + (f"; not so long yet: {younger}" if younger else "")
        + (hidden if running.hidden_sessions else "")
    )


def _secrets(found: SecretsAtRest) -> str:
    sealed = found.count - found.in_clear
    return f"{found.in_clear:,} in clear, {sealed:,} sealed" + (
        f", {found.sealed_to_older_keys:,} of them to another key than the newest" if found.sealed_to_older_keys else ""
    )


def _with_age(count: Count, seconds: float | None) -> str:
    return f"{count}" if seconds is None else f"{count}, the oldest for {duration(seconds)}"


def _when(moment: datetime | None, now: datetime) -> str:
    return "-" if moment is None else f"{duration((now - moment).total_seconds())} ago"


def _called(item: Named) -> str:
    """Return name and tenant, as far as it has them."""
    return " of ".join(filter(None, (item.name or "", item.tenant))) or "-"


def _up_to_1000(counted: int) -> str:
    """Health is counted up to 1,001."""
    return str(counted) if counted <= 1000 else "over 1,000"


def _why(health: SubscriptionHealth) -> str:
    return health.last_error or str(health.last_status or health.last_outcome or "not attempted yet")


def _document(found: Status) -> dict[str, Any]:
    """Return the status as JSON has it: a subscription's health among its other fields."""
    return fields_of(found) | {
        "running": fields_of(found.running),
        "disabled": _newest(found.disabled),
        "paused": _newest(found.paused),
        "held": _newest(found.held),
        "limits": fields_of(found.limits) | {"slowed": _newest(found.limits.slowed)},
        "breakers": fields_of(found.breakers) | {"named": [_with_breaker(item) for item in found.breakers.named]},
        "stuck": _flat(found.stuck),
    }


def _newest(found: Newest[Any]) -> dict[str, Any]:
    return fields_of(found) | {"named": _flat(found.named)}


def _with_breaker(item: NamedBreaker) -> dict[str, Any]:
    return fields_of(item, "health") | fields_of(item.health) | {"breaker": fields_of(item.breaker)}


def _flat(named: Iterable[Named]) -> list[dict[str, Any]]:
    return [fields_of(item, "health") | fields_of(item.health) for item in named]
