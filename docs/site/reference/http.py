"""Routes, parameters, bodies and answers of the HTTP API, from its OpenAPI document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from itertools import groupby
from typing import Any

from docs.site.markdown import code, table
from relay.config.options import Config
from relay.web.app import create_app

_HEAD = """# HTTP

Every operation of `relay serve`, from its description, which it also answers itself at `/api/v1/openapi.json`. The
rules that all of them share (tokens, errors, pages, repetition) are in [HTTP API](../api.md).
"""
Schema = Mapping[str, Any]


def http() -> str:
    """Return the page: the operations by their subject, then the documents."""
    described = create_app(Config()).openapi()
    operations = [
        (_subject(path), method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    usual = _usual([operation for *_, operation in operations])
    parts = [
        _HEAD,
        "\n## Errors of any operation\n\nEach is a [Problem](#problem).\n\n",
        table(("status", "meaning"), usual),
    ]
    for subject, group in groupby(sorted(operations, key=lambda one: one[0]), key=lambda one: one[0]):
        parts.append(f"\n## {subject.capitalize()}\n")
        parts += [_operation(method, path, operation, usual) for _, method, path, operation in group]
    parts.append("\n## Documents\n")
    parts += [_document(name, schema) for name, schema in sorted(described["components"]["schemas"].items())]
    return "".join(parts)


def _subject(path: str) -> str:
    return path.removeprefix("/api/v1/").partition("/")[0].replace("-", " ")


def _operation(method: str, path: str, operation: Schema, usual: Container[tuple[str, str]]) -> str:
    about = operation.get("description") or operation.get("summary", "")
    parameters = [
        (code(one["name"]), one["in"], _type(one["schema"]), _required(one.get("required")), one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    answers = [
        (status, _content(answer) or "–", answer.get("description", ""))
        for status, answer in sorted(operation["responses"].items())
        if (status, answer.get("description")) not in usual
    ]
    body = _content(operation.get("requestBody", {}))
    return "\n".join(
        [
            f"\n### {method.upper()} {path.removeprefix('/api/v1')}\n",
            f"`{operation['operationId']}`. {about}\n",
            *([table(("parameter", "in", "type", "", "meaning"), parameters)] if parameters else []),
            *([f"Body: {body}\n"] if body else []),
            table(("status", "answer", "meaning"), answers),
        ]
    )


def _usual(operations: list[Schema]) -> dict[tuple[str, str], None]:
    """Return the errors that most operations answer alike: status and meaning."""
    told = [(status, one["description"]) for it in operations for status, one in sorted(it["responses"].items())]
    return {
        one: None for one, times in sorted(Counter(told).items()) if one[0] >= "400" and times > len(operations) / 2
    }


def _content(holder: Schema) -> str:
    return ", ".join(_type(one["schema"]) for one in holder.get("content", {}).values() if one.get("schema"))


def _document(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    rows = [
        (code(field), _type(one), _required(field in required), one.get("description", ""))
        for field, one in schema.get("properties", {}).items()
    ]
    fields = table(("member", "type", "", "meaning"), rows) if rows else f"{_type(schema)}\n"
    about = f"{schema['description']}\n\n" if schema.get("description") else ""
    return f"\n### {name}\n\n{about}{fields}"


def _required(required: object) -> str:
    return "required" if required else ""


def _type(schema: Schema) -> str:
    """Return the type of a schema in words; a document is a link to its own heading."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for joint in ("anyOf", "oneOf", "allOf"):
        if joint in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[joint])))
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if "const" in schema:
        return code(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("format") or schema.get("type") or "anything")
