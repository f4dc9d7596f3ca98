"""What one JSON Schema says: its references resolved, the forms of its unions, its types and values. Pure.

Keywords are read as in draft 2020-12, and `items` as a list as in the drafts before. References are followed inside the
document only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "TYPES",
    "Schema",
    "as_mapping",
    "forms_of",
    "mapping_at",
    "positions_of",
    "resolve",
    "resolved_forms",
    "rest_of",
    "types_of",
    "values_of",
]

Schema = Mapping[str, Any]

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_DEEPEST = 50


def as_mapping(schema: Any) -> Schema:
    """Return a schema that may be written as True, False or None as a mapping."""
    return {} if schema is None or schema is True else {"not": {}} if schema is False else schema


def resolve(root: Schema, schema: Any, depth: int = 0) -> Schema:
    """Return what a schema refers to, its own keywords beside, and the parts of allOf in it."""
    found = dict(as_mapping(schema))
    for _ in range(_DEEPEST):
        reference = found.get("$ref")
        target = _pointed(root, reference) if isinstance(reference, str) else None
        if target is None:
            break
        del found["$ref"]
        found = _merged(dict(as_mapping(target)), found)
    if depth < _DEEPEST:
        for part in found.pop("allOf", ()):
            found = _merged(found, dict(resolve(root, part, depth + 1)))
    return found


def _pointed(root: Schema, reference: str) -> Any:
    """Return what a local reference (#/$defs/Item) points to; None for one that leads elsewhere."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    found: Any = root
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that asks for what both ask for; where both have a keyword, the later one's counts."""
    both = {**one, **other}
    for name in ("properties", "patternProperties", "$defs"):
        if name in one and name in other:
            both[name] = {**one[name], **other[name]}
    if "required" in one and "required" in other:
        both["required"] = [*one["required"], *other["required"]]
    return both


def forms_of(root: Schema, schema: Schema, within: frozenset[str] = frozenset()) -> list[Schema]:
    """Return the forms of which one holds, each with what is asked for beside; one where there is no choice.

    `within` are the references that led here: a union that is one of its own forms adds nothing to itself.
    """
    keyword = next((name for name in ("anyOf", "oneOf") if schema.get(name)), None)
    if keyword is not None:
        beside = {name: value for name, value in schema.items() if name != keyword}
        found: list[Schema] = []
        for form in schema[keyword]:
            reference = as_mapping(form).get("$ref")
            if reference not in within:
                merged = _merged(beside, dict(resolve(root, form)))
                found += forms_of(root, merged, within | ({reference} if reference else set()))
        return [one for place, one in enumerate(found) if one not in found[:place]] or [{}]
    kinds = schema.get("type")
    if isinstance(kinds, list) and len(kinds) > 1 and not {"enum", "const"} & schema.keys():
        return [{**schema, "type": kind} for kind in kinds]
    return [schema]


def resolved_forms(root: Schema, schema: Any) -> list[Schema]:
    """Return the forms that a part of the schema `root` may have, without references: one, or those of its union."""
    return [resolve(root, form) for form in forms_of(root, resolve(root, schema))]


def types_of(schema: Schema) -> frozenset[str]:
    """Return JSON's types that a schema allows."""
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return frozenset({kinds})
    if kinds is not None:
        return frozenset(kinds)
    given = values_of(schema)
    return TYPES if given is None else frozenset(map(_type_of, given))


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}
    return names.get(type(value), "null")


def values_of(schema: Schema) -> list[Any] | None:
    """Return the values that a schema allows; None where it does not list them."""
    if "const" in schema:
        return [schema["const"]]
    given = schema.get("enum")
    return None if given is None else list(given)


def mapping_at(schema: Schema, name: str) -> Schema:
    """Return what a keyword holds; empty where that is no mapping."""
    found = schema.get(name, {})
    return found if isinstance(found, Mapping) else {}


def positions_of(schema: Schema) -> list[Any]:
    """Return the schemas of the items that have a place of their own."""
    found = schema.get("prefixItems", schema.get("items"))
    return list(found) if isinstance(found, list) else []


def rest_of(schema: Schema) -> Any:
    """Return what items may be that have no place of their own."""
    items = schema.get("items", True)
    return schema.get("additionalItems", True) if isinstance(items, list) else items
