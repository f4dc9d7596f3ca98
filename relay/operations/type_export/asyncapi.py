"""An AsyncAPI 3 document: the webhooks that the relay sends, a message for each type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from relay.operations.type_export.json_schema import body_schema, described

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outbox.event_types.declared_type import DeclaredType

__all__ = ["asyncapi_document"]

_CHANNEL = "webhooks"
_HEADERS = {
    "type": "object",
    "properties": {
        "webhook-id": {
            "type": "string",
            "description": "The event's id, the same on every attempt; drop what you know.",
        },
        "webhook-timestamp": {"type": "string", "pattern": "^[0-9]+$", "description": "Of this attempt, in seconds."},
        "webhook-signature": {"type": "string", "description": "As Standard Webhooks 1.0 has it."},
    },
    "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
}


def asyncapi_document(types: Iterable[DeclaredType], title: str, version: str) -> dict[str, Any]:
    """Return the document. `send` is what the described application does: it posts these to a receiver's URL."""
    listed = list(types)
    references = [{"$ref": f"#/channels/{_CHANNEL}/messages/{one.type}"} for one in listed]
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": {
            _CHANNEL: {
                "address": None,
                "description": "A POST to the URL of each subscription whose patterns match the type.",
                "messages": {one.type: {"$ref": f"#/components/messages/{one.type}"} for one in listed},
            }
        },
        "operations": {
            "deliver": {"action": "send", "channel": {"$ref": f"#/channels/{_CHANNEL}"}, "messages": references}
        },
        "components": {
            "messages": {one.type: _message(one) for one in listed},
            "schemas": {one.type: described(one, f"#/components/schemas/{one.type}") for one in listed},
        },
    }


def _message(one: DeclaredType) -> dict[str, Any]:
    told = [one.description] if one.description else []
    if one.deprecated is not None:
        told.append(f"Deprecated: {one.deprecated}")
    message: dict[str, Any] = {
        "name": one.type,
        "title": one.type,
        "contentType": "application/json",
        "headers": _HEADERS,
        "payload": body_schema(one, f"#/components/schemas/{one.type}"),
    }
    if told:
        message["description"] = "\n\n".join(told)
    if one.example is not None:
        sent = {"type": one.type, "timestamp": "2026-01-31T12:00:00.000000Z", "data": json.loads(one.example)}
        message["examples"] = [{"payload": sent}]
    return message
