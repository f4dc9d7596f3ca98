"""A schema inside another document: what it refers to by itself lies deeper there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["moved"]

_DATA = ("const", "default", "enum", "example", "examples")  # what stands here is data, whatever it looks like


def moved(schema: Mapping[str, Any] | None, place: str) -> dict[str, Any]:
    """Return a schema as it stands at `place` ("#/$defs/order.placed"): its references to itself begin there.

    One with an `$id` is a document of its own wherever it stands. None, any JSON, is the empty schema.
    """
    if schema is None or "$id" in schema:
        return dict(schema or {})
    return {name: _moved(name, value, place) for name, value in schema.items() if name != "$schema"}


def _moved(name: str, value: Any, place: str) -> Any:
    if name in _DATA:
        return value
    if name == "$ref" and isinstance(value, str):
        return place + value[1:] if value == "#" or value.startswith("#/") else value
    if isinstance(value, dict):
        return {inner: _moved(inner, one, place) for inner, one in value.items()}
    return [_moved("", one, place) for one in value] if isinstance(value, list) else value
