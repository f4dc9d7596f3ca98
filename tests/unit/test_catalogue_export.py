"""The catalogue as a document: each keeps the rules of its format, and what is sent keeps the document."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import jsonschema_rs
import pydantic
import pytest

from outbox import Catalogue, EventType
from outbox.event_types.declared_type import DeclaredType
from relay.operations.type_export.asyncapi import asyncapi_document
from relay.operations.type_export.json_schema import json_schema_document
from relay.operations.type_export.markdown import markdown_page
from relay.operations.type_export.references import moved


class Item(pydantic.BaseModel):
    cents: int
    price: Decimal = Decimal(1)


class Order(pydantic.BaseModel):
    items: list[Item]
    after: Order | None = None


@pytest.fixture
def types() -> list[DeclaredType]:
    events = Catalogue("shop")
    EventType("order.placed", Order, description="An order.", example={"items": [{"cents": 1}]}, catalogue=events)
    EventType("order.noted", deprecated="use order.placed", catalogue=events)
    EventType("tree", {"type": "array", "items": {"$ref": "#"}, "examples": [{"$ref": "#"}]}, catalogue=events)
    return [one.declaration for one in events]


def body(type_: str, data: Any) -> dict[str, Any]:
    return {"type": type_, "timestamp": "2026-01-31T12:00:00.000000Z", "data": data}


def test_a_body_keeps_the_json_schema_exactly_where_its_data_keep_the_types(types) -> None:
    document = json_schema_document(types, "Events")
    assert jsonschema_rs.meta.is_valid(document)
    validator = jsonschema_rs.validator_for(document, validate_formats=True)
    order = {"items": [{"cents": 1}], "after": {"items": []}}
    right = [("order.placed", order), ("order.noted", [1]), ("tree", [[], [[]]])]
    wrong = [("order.placed", {"items": [{}]}), ("tree", [[1]]), ("other", 1), ("order.placed", {"after": order})]
    assert [validator.is_valid(body(*one)) for one in right] == [True] * 3
    assert [validator.is_valid(body(*one)) for one in wrong] == [False] * 4
    assert document["$defs"]["order.noted"] == {"deprecated": True}
    assert document["$defs"]["order.placed"]["examples"] == [{"items": [{"cents": 1}]}]


def pointed(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step.replace("~1", "/").replace("~0", "~")]
    return document


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) and "examples" not in value else []
        return own + [one for name, inner in value.items() if name != "examples" for one in references(inner)]
    return [one for inner in value for one in references(inner)] if isinstance(value, list) else []


def test_an_asyncapi_document_refers_only_to_what_is_in_it(types) -> None:
    document = asyncapi_document(types, "Events", "1.0.0")
    found = references(document)
    assert "#/components/schemas/order.placed/$defs/Item" in found
    assert "#/components/schemas/tree" in found
    assert all(pointed(document, one) is not None for one in found)
    messages = document["components"]["messages"]
    assert messages["order.noted"]["description"] == "Deprecated: use order.placed"
    payload = {**messages["order.placed"]["payload"], "components": document["components"]}
    (example,) = messages["order.placed"]["examples"]
    assert jsonschema_rs.validator_for(payload).is_valid(example["payload"])
    assert not jsonschema_rs.validator_for(payload).is_valid(body("order.placed", {"items": [{}]}))
    assert [one["$ref"] for one in document["operations"]["deliver"]["messages"]] == [
        f"#/channels/webhooks/messages/{name}" for name in ("order.noted", "order.placed", "tree")
    ]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, {}),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#"}, {"$ref": "#/x"}),
        ({"$ref": "#/$defs/A"}, {"$ref": "#/x/$defs/A"}),
        ({"$ref": "https://example.com/#/a"}, {"$ref": "https://example.com/#/a"}),
        ({"$id": "https://example.com/a", "$ref": "#/a"}, {"$id": "https://example.com/a", "$ref": "#/a"}),
        ({"properties": {"$ref": {"type": "string"}}}, {"properties": {"$ref": {"type": "string"}}}),
        ({"anyOf": [{"$ref": "#/a"}]}, {"anyOf": [{"$ref": "#/x/a"}]}),
        ({"const": {"$ref": "#/a"}}, {"const": {"$ref": "#/a"}}),
    ],
)
def test_references_move_with_their_schema(schema, expected) -> None:
    assert moved(schema, "#/x") == expected


def test_a_page_has_a_table_for_each_type_and_no_markup_of_others() -> None:
    schema = {"properties": {"a|b": {"type": "string", "description": "<b>|x|\n`y`"}}, "required": ["a|b"]}
    one = DeclaredType(
        type="order.placed", version=2, description="# not a heading\n<script>", schema=schema, example='{"a|b":"é"}',
        deprecated="use *that*",
    )  # fmt: skip
    page = markdown_page([one, DeclaredType(type="any")], "Events").splitlines()
    assert page[:6] == ["# Events", "", "## order.placed", "", "Version 2.", ""]
    assert "**Deprecated:** use \\*that\\*" in page
    assert "\\# not a heading" in page
    assert "&lt;script>" in page
    assert "| `['a\\|b']` | string | yes | &lt;b>\\|x\\| \\`y\\` |" in page
    assert '  "a|b": "é"' in page
    assert "Its data is any JSON." in page
    assert json.loads("".join(page[page.index("```json") + 1 : page.index("```", page.index("```json"))]))
