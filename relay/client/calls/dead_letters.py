"""Calls about dead letters: read, redrive, purge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.control.dead_letters import DeadLetterDetails, ListedDeadLetter
from relay.client.calls.making import chosen, get_one, get_page, send
from relay.client.results import Purged, Replayed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outbox.control.pages import Page
    from relay.client.call import Call

__all__ = [
    "get_dead_letter",
    "get_dead_letters",
    "purge_dead_letter",
    "purge_dead_letters",
    "redrive_dead_letter",
    "redrive_dead_letters",
]


def get_dead_letters(**filters: Any) -> Call[Page[ListedDeadLetter]]:
    """List dead letters; filters: since, until, type, tenant, key, subscription, event, text, after, limit."""
    return get_page(ListedDeadLetter, "/dead-letters", **filters)


def get_dead_letter(delivery_id: object) -> Call[DeadLetterDetails]:
    """Show one dead letter with its payload."""
    return get_one(DeadLetterDetails, "/dead-letters/{}", delivery_id)


def redrive_dead_letter(delivery_id: object, *, once: str | None = None) -> Call[Replayed]:
    """Deliver one dead letter again."""
    return send(Replayed, "POST", "/dead-letters/{}/redrive", delivery_id, once=once)


def redrive_dead_letters(
    ids: Sequence[object] | None = None,
    filters: Mapping[str, Any] | None = None,
    *,
    dry_run: bool = False,
    once: str | None = None,
) -> Call[Replayed]:
    """Deliver dead letters again: by ids or by filters."""
    return send(Replayed, "POST", "/dead-letters/redrive", body=chosen(ids, filters, dry_run=dry_run), once=once)


def purge_dead_letter(delivery_id: object) -> Call[Purged]:
    """Delete one dead letter for good."""
    return send(Purged, "DELETE", "/dead-letters/{}", delivery_id)


def purge_dead_letters(
    ids: Sequence[object] | None = None, filters: Mapping[str, Any] | None = None, *, dry_run: bool = False
) -> Call[Purged]:
    """Delete dead letters for good: by ids or by filters."""
    return send(Purged, "POST", "/dead-letters/purge", body=chosen(ids, filters, dry_run=dry_run))
