"""Print a subscription: its fields, and what a person should be warned of."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from outbox import formats
from outbox.control.times import duration, who_held
from outbox.signing.schemes import UNSIGNED
from outbox.subscriptions import NewSubscription, Subscription
from outbox.subscriptions.filters.values import in_json
from relay.cli.options import warn
from relay.cli.output import print_fields, print_json

__all__ = ["document_of", "print_subscription", "state_of", "tenant_name"]


def document_of(item: Subscription) -> dict[str, Any]:
    """Return a subscription as its JSON document."""
    return {"id": item.id, "state": item.state, **asdict(item), "filter": in_json(item.filter)}


def print_subscription(item: Subscription, health: dict[str, Any] | None = None, *, as_json: bool) -> None:
    """Print a subscription with its warnings, and `health` as more fields."""
    document = document_of(item) | (health or {})
    if as_json:
        print_json(document)
        return
    document["state"] = state_of(item)
    if document.get("held_seconds"):
        left, who = duration(document["held_seconds"]), who_held(document["held_seconds"])
        document["state"] = f"{state_of(item)}, held back for another {left} {who}"
    document["tenant"] = tenant_name(item)
    document["filter"] = (
        json.dumps(document["filter"], ensure_ascii=False, separators=(",", ":")) if item.filter else None
    )
    print_fields({name: _words(value) for name, value in document.items()})
    for warning in formats.warnings_of(item.format, item.url):
        warn(warning)
    if item.scheme == UNSIGNED:
        warn(f"{item.id} is unsigned: its receiver cannot tell our requests from anybody's")
    elif isinstance(item, NewSubscription):
        click.echo("Keep the secret now: it is not shown again.", err=True)
        if item.public_key:
            click.echo("Its receiver verifies with the public key, and needs no secret.", err=True)


def state_of(item: Subscription) -> str:
    """Return its state in words."""
    drops = item.state == "paused" and item.drops_while_paused
    return item.state + ", drops" * drops + ", unsigned" * (item.scheme == UNSIGNED)


def _words(value: Any) -> Any:
    """Return a mapping as NAME=VALUE, as a flag gives it; anything else as it is."""
    return [f"{name}={item}" for name, item in value.items()] if isinstance(value, dict) else value


def tenant_name(item: Subscription) -> str:
    """Return whose it is, in words."""
    return "every tenant" if item.tenant == "*" else item.tenant or "-"
