"""The parts of an event's data as its JSON Schema has them, in rows that people read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from outbox.event_types.schema_forms import resolved_forms
from outbox.recording.payload import step_text

__all__ = ["Part", "parts_of"]

_MOST = 500
_DEEPEST = 12
_LONGEST_PLACE = 300


@dataclass(frozen=True, slots=True)
class Part:
    """One place in the data: `items[].cents`, its kind (`integer or null`), whether it is always there, what it is."""

    place: str
    kind: str
    required: bool
    description: str = ""


def parts_of(schema: Mapping[str, Any] | None) -> tuple[Part, ...]:
    """Return the parts that a schema declares, in its order; the first 500, twelve levels deep at most."""
    found = [] if schema is None else _below(schema, schema, "", _DEEPEST)
    return tuple(part for part, _ in zip(found, range(_MOST), strict=False))


def _below(root: Mapping[str, Any], schema: Any, place: str, depth: int) -> Iterator[Part]:
    if depth == 0 or len(place) > _LONGEST_PLACE:
        return
    for form in resolved_forms(root, schema):
        needed = set(form.get("required", ()))
        for step, name, inner in _fields(form):
            inside = f"{place}{step}".removeprefix(".")
            yield _part(root, inner, inside, required=name in needed)
            yield from _below(root, inner, inside, depth - 1)
        if isinstance(items := form.get("items"), Mapping):
            if not place:
                yield _part(root, items, "[]", required=False)
            yield from _below(root, items, f"{place}[]", depth - 1)


def _fields(form: Mapping[str, Any]) -> Iterator[tuple[str, str | None, Any]]:
    """Yield the step to each field, its name, and its schema; `.*` stands for the fields of a map."""
    for name, inner in form.get("properties", {}).items():
        yield step_text(name), name, inner
    if isinstance(others := form.get("additionalProperties"), Mapping) and others:
        yield ".*", None, others


def _part(root: Mapping[str, Any], schema: Any, place: str, *, required: bool) -> Part:
    forms = resolved_forms(root, schema)
    kinds = dict.fromkeys(_kind(root, form) for form in forms)
    told = schema.get("description", "") if isinstance(schema, Mapping) else ""
    told = told or (str(forms[0].get("description", "")) if len(forms) == 1 else "")
    return Part(place=place, kind=" or ".join(kinds), required=required, description=str(told))


def _kind(root: Mapping[str, Any], form: Mapping[str, Any]) -> str:
    if "const" in form:
        return json.dumps(form["const"], ensure_ascii=False)
    if "enum" in form:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in form["enum"])
    kind = form.get("type", "object" if "properties" in form else "anything")
    if kind == "array" and isinstance(items := form.get("items"), Mapping):
        inner = " or ".join(dict.fromkeys(_plain(one) for one in resolved_forms(root, items)))
        return f"array of {inner}"
    return _plain(form)


def _plain(form: Mapping[str, Any]) -> str:
    kind = form.get("type", "object" if "properties" in form else "anything")
    named = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{named} ({form['format']})" if isinstance(form.get("format"), str) else named
