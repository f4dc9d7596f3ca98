"""A JSON Schema of every body that the relay sends in its standard format: {"type", "timestamp", "data"}."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from relay.operations.type_export.references import moved

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outbox.event_types.declared_type import DeclaredType

__all__ = ["body_schema", "described", "json_schema_document"]


def json_schema_document(types: Iterable[DeclaredType], title: str) -> dict[str, Any]:
    """Return one schema (2020-12) that a body of any of these types keeps; the data of each is under $defs by name."""
    listed = list(types)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "anyOf": [body_schema(one, f"#/$defs/{one.type}") for one in listed],
        "$defs": {one.type: described(one, f"#/$defs/{one.type}") for one in listed},
    }


def body_schema(one: DeclaredType, data: str) -> dict[str, Any]:
    """Return the schema of a body whose data is what `data` refers to."""
    return {
        "type": "object",
        "properties": {
            "type": {"const": one.type},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {"$ref": data},
        },
        "required": ["type", "timestamp", "data"],
    }


def described(one: DeclaredType, place: str) -> dict[str, Any]:
    """Return the schema of the data as it stands at `place`, with what is told of the type."""
    told: dict[str, Any] = {"description": one.description} if one.description else {}
    if one.example is not None:
        told["examples"] = [json.loads(one.example)]
    if one.deprecated is not None:
        told["deprecated"] = True
    return {**moved(one.schema, place), **told}
