"""Calls about what can be chosen: event types, schemes, formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.client.calls.making import get_one, get_page

if TYPE_CHECKING:
    from outbox.control.known_types import KnownType, KnownTypeDetails
    from outbox.control.pages import Page
    from relay.client.call import Call

__all__ = ["get_event_type", "get_event_types", "get_formats", "get_scheme", "get_schemes"]


def get_event_types(**page: Any) -> Call[Page[KnownType]]:
    """List event types, declared and seen; page: after, limit."""
    from outbox.control.known_types import KnownType

    return get_page(KnownType, "/event-types", **page)


def get_event_type(name: str) -> Call[KnownTypeDetails]:
    """Show one event type with its JSON Schema."""
    from outbox.control.known_types import KnownTypeDetails

    return get_one(KnownTypeDetails, "/event-types/{}", name)


def get_schemes() -> Call[list[dict[str, Any]]]:
    """List how requests can be signed."""
    return get_one(list[dict[str, Any]], "/schemes")


def get_scheme(name: str) -> Call[dict[str, Any]]:
    """Show what a scheme signs."""
    return get_one(dict[str, Any], "/schemes/{}", name)


def get_formats() -> Call[list[dict[str, Any]]]:
    """List the shapes that a body can have."""
    return get_one(list[dict[str, Any]], "/formats")
