"""`relay audit`: who changed what, when, and what it was before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from outbox.control import audit as operations
from outbox.control.filters import Filters
from relay.cli.options import after_option, filters, json_option
from relay.cli.output import print_json_lines, print_more, print_table
from relay.cli.source import Source, query_of, with_source
from relay.client import calls

if TYPE_CHECKING:
    from outbox.control.audit import AuditEntry

__all__ = ["audit", "change_of"]


@click.command()
@click.option("--subject", metavar="ID", help="Only this one: sub_…, dlv_…, evt_…, or a sealing key's id.")
@click.option("--actor", metavar="NAME", help="Only what this one did; relay is the relay itself.")
@click.option(
    "--action", type=click.Choice(operations.ACTIONS), metavar="ACTION", help="Only this: paused, replayed, …"
)
@filters("tenant", "since", "until", "limit")
@after_option
@json_option
@with_source
def audit(
    source: Source, subject: str | None, actor: str | None, action: str | None, after: str | None, *, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Who changed what, when, and what it was before: newest first. Never a secret.

    Subscriptions, secrets and sealing keys are noted whoever changes them, also by SQL; replay, purge and prune when
    they are done by a command. ACTOR is --actor of the command or outbox.act_as(); without one it is the database's
    login role, as db:ROLE. With --json everything is in full.

    \b
    Examples:
      relay audit --subject sub_…
      relay audit --actor alice@example.com --since 1d --json
      relay audit --action 'secret added' --tenant acme
    """
    wanted, about = Filters(**given), {"subject": subject, "actor": actor, "action": action, "after": after}
    found = source.ask(
        lambda connection: operations.list_audit(connection, None, wanted, **about),
        lambda: calls.get_audit(**query_of(wanted), **about),
    )
    if as_json:
        print_json_lines(found)
    else:
        rows = [
            (item.at, item.actor or f"db:{item.role}", item.action, item.subject or "-", _told(item)) for item in found
        ]
        print_table(["AT UTC", "ACTOR", "ACTION", "SUBJECT", "CHANGE"], rows, flexible=["ACTOR", "ACTION", "CHANGE"])
    print_more(found)


def _told(item: AuditEntry) -> str:
    return "; ".join(filter(None, (operations.meaning_of(item), change_of(item))))


def change_of(item: AuditEntry) -> str:
    """Return in one line what a row of the audit says: `paused_at: - → 2026-01-31T12:00:00Z; …`."""
    if item.details is not None:
        return "; ".join(f"{name}: {_text_of(value)}" for name, value in item.details.items())
    before, after = item.before, item.after
    if before is None or after is None:
        only = after if before is None else before
        return "; ".join(f"{name}: {_text_of(value)}" for name, value in (only or {}).items() if value not in _NOTHING)
    return "; ".join(
        f"{name}: {_text_of(before.get(name))} → {_text_of(value)}" if value != before.get(name) else f"{name}: {value}"
        for name, value in after.items()
        if value not in _NOTHING or before.get(name) not in _NOTHING
    )


_NOTHING: tuple[Any, ...] = (None, "", [], {})


def _text_of(value: Any) -> str:
    if value in _NOTHING:
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value[:_SHOWN])) + (f",… ({len(value)})" if len(value) > _SHOWN else "")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


_SHOWN = 10  # of a list; --json has it in full
