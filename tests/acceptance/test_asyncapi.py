"""The AsyncAPI document is one by the official schema of AsyncAPI 3, from npm."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs

from outbox import Catalogue, EventType
from relay.operations.type_export.asyncapi import asyncapi_document
from tests.support.npm import Npm

SCHEMA = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/Item"}}, "note": {"type": ["string", "null"]}},
    "required": ["items"],
    "$defs": {"Item": {"type": "object", "properties": {"cents": {"type": "integer", "minimum": 0}}}},
}


def test_the_exported_document_keeps_the_official_schema(tmp_path: Path) -> None:
    Npm(tmp_path, ("@asyncapi/specs@6.11.1",))
    (file,) = tmp_path.glob("node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json")
    validator = jsonschema_rs.validator_for(json.loads(file.read_text()))
    events = Catalogue("shop")
    EventType("order.placed", SCHEMA, description="An order.", example={"items": []}, catalogue=events)
    EventType("order.noted", deprecated="use order.placed", catalogue=events)
    document = asyncapi_document([one.declaration for one in events], "Events", "1.0.0")
    assert [(one.instance_path, one.message[:200]) for one in validator.iter_errors(document)] == []
    for broken in ({"info": {}}, {"operations": {"deliver": {"action": "post"}}}, {"asyncapi": "2.0.0"}):
        assert not validator.is_valid({**document, **broken})
