"""What changed between two JSON Schemas, and whether it breaks receivers: a table."""

from __future__ import annotations

from typing import Any

import hypothesis
import jsonschema_rs
import pytest
from hypothesis import strategies as st

from outbox.catalogue import compare_schemas

Schema = dict[str, Any] | None


def fields(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split()}


INT, TEXT, NUMBER, NULL = ({"type": name} for name in ("integer", "string", "number", "null"))
ITEM = fields("cents", cents=INT)
ITEM_WITHOUT = fields("", cents=INT)
SMALL = st.integers(0, 3)
NODES = {"type": "array", "items": {"$ref": "#/$defs/N"}}
OBJECT: dict[str, Any] = {"type": "object"}

# What it was, what it is, and each change: `!` breaks receivers.
CASES: dict[str, tuple[Schema, Schema, list[str]]] = {
    "nothing": (fields("a", a=INT), fields("a", a=INT), []),
    "words only": ({"type": "integer", "title": "A"}, {"type": "integer", "description": "b"}, []),
    "order of required": ({"required": ["a", "b"]}, {"required": ["b", "a"]}, []),
    # fields
    "a new field": (fields("a", a=INT), fields("a", a=INT, b=INT), ["data.b: is new"]),
    "a new field that is always there": (fields("", a=INT), fields("b", a=INT, b=INT), ["data.b: is new"]),
    "a new field though none was to come": (
        {**fields("a", a=INT), "additionalProperties": False},
        {**fields("a", a=INT, b=INT), "additionalProperties": False},
        ["data.b: is new"],
    ),
    "a field is gone": (fields("a", a=INT, b=INT), fields("a", a=INT), ["! data.b: is not there any more"]),
    "a required field is gone": (fields("a b", a=INT, b=INT), fields("a", a=INT), ["! data.b: is not there any more"]),
    "a field is renamed": (
        fields("a", a=INT),
        fields("b", b=INT),
        ["! data.a: is not there any more", "data.b: is new"],
    ),
    "a required one is optional": (
        fields("a", a=INT),
        fields("", a=INT),
        ["! data.a: was always there, and may be missing now"],
    ),
    "an optional one is required": (fields("", a=INT), fields("a", a=INT), ["data.a: is always there now"]),
    "a field inside": (
        fields("o", o=fields("a", a=INT)),
        fields("o", o=fields("a", a=TEXT)),
        ["! data.o.a: was integer, is string"],
    ),
    "an odd name": (fields("", **{"a b": INT}), fields(""), ["! data['a b']: is not there any more"]),
    # types
    "another type": (INT, TEXT, ["! data: was integer, is string"]),
    "wider": (INT, NUMBER, ["! data: was integer, is number"]),
    "narrower": (NUMBER, INT, ["data: was number, is only integer"]),
    "null comes": (INT, {"type": ["integer", "null"]}, ["! data: may be null now"]),
    "null goes": ({"type": ["integer", "null"]}, INT, ["data: is never null any more"]),
    "anything becomes something": ({}, INT, ["data: was anything, is only integer"]),
    "something becomes anything": (INT, {}, ["! data: was integer, is anything"]),
    "no schema becomes one": (None, fields("a", a=INT), ["data: was anything, is only object", "data.a: is new"]),
    "a schema is taken away": (OBJECT, None, ["! data: was object, is anything"]),
    # values
    "an enum is wider": ({"enum": ["a"]}, {"enum": ["a", "b"]}, ["! data: may be 'b' now"]),
    "an enum is narrower": ({"enum": ["a", "b"]}, {"enum": ["a"]}, ["data: is never 'b' any more"]),
    "an enum ends": ({"type": "string", "enum": ["a"]}, TEXT, ["! data: was one of a few values, and may be any now"]),
    "an enum begins": (TEXT, {"type": "string", "enum": ["a"]}, ["data: is one of a few values now"]),
    "an enum of another type": ({"enum": ["a"]}, {"enum": [1]}, ["! data: was string, is integer"]),
    "another constant": ({"const": "a"}, {"const": "b"}, ["! data: may be 'b' now", "data: is never 'a' any more"]),
    # bounds
    "a lower minimum": ({"minimum": 1}, {"minimum": 0}, ["! data: minimum was 1, is 0"]),
    "a higher minimum": ({"minimum": 0}, {"minimum": 1}, ["data: minimum was 0, is 1"]),
    "no minimum": ({"minimum": 0}, {}, ["! data: minimum was 0, is gone"]),
    "a new maximum": ({}, {"maximum": 9}, ["data: maximum is 9 now"]),
    "longer": ({"maxLength": 5}, {"maxLength": 9}, ["! data: maxLength was 5, is 9"]),
    "shorter": ({"maxLength": 9}, {"maxLength": 5}, ["data: maxLength was 9, is 5"]),
    "finer": ({"multipleOf": 10}, {"multipleOf": 5}, ["! data: multipleOf was 10, is 5"]),
    "coarser": ({"multipleOf": 5}, {"multipleOf": 10}, ["data: multipleOf was 5, is 10"]),
    "an item twice": ({"uniqueItems": True}, {}, ["! data: uniqueItems was True, is gone"]),
    "another pattern": ({"pattern": "a"}, {"pattern": "b"}, ["! data: pattern was a, is b"]),
    "a new pattern": (TEXT, {"type": "string", "pattern": "b"}, ["data: pattern is b now"]),
    "another format": ({"format": "date"}, {"format": "date-time"}, ["! data: format was date, is date-time"]),
    "no condition": ({"not": {"const": 1}}, {}, ["! data: not was a schema, is gone"]),
    # lists and maps
    "items": (
        {"type": "array", "items": ITEM},
        {"type": "array", "items": ITEM_WITHOUT},
        ["! data[].cents: was always there, and may be missing now"],
    ),
    "items of any kind": (
        {"type": "array", "items": INT},
        {"type": "array"},
        ["! data[]: was integer, is anything"],
    ),
    "a place in a tuple": (
        {"prefixItems": [INT, TEXT], "items": False},
        {"prefixItems": [INT, INT], "items": False},
        ["! data[1]: was string, is integer"],
    ),
    "a map's values": (
        {"additionalProperties": INT},
        {"additionalProperties": TEXT},
        ["! data.*: was integer, is string"],
    ),
    "a map of any values": ({"additionalProperties": INT}, {}, ["! data.*: was integer, is anything"]),
    "other fields may come": ({"additionalProperties": False}, {}, []),
    # unions and references
    "a form comes": (
        {"anyOf": [INT, TEXT]},
        {"anyOf": [INT, TEXT, NULL]},
        ["! data: may be null now"],
    ),
    "a form goes": ({"anyOf": [INT, NULL]}, INT, ["data: is never null any more"]),
    "forms in another order": ({"anyOf": [INT, NULL]}, {"anyOf": [NULL, INT]}, []),
    "type lists are unions": ({"type": ["integer", "null"]}, {"anyOf": [NULL, INT]}, []),
    "a union within a union": (
        {"anyOf": [{"anyOf": [INT, NULL]}, TEXT]},
        {"anyOf": [INT, TEXT, NULL, {"type": "boolean"}]},
        ["! data: may be boolean now"],
    ),
    "inside a form": (
        {"oneOf": [{"title": "Card", **fields("n", n=INT)}, NULL]},
        {"oneOf": [{"title": "Card", **fields("n", n=TEXT)}, NULL]},
        ["! data.n: was integer, is string"],
    ),
    "another object in a union": (
        {"oneOf": [{"title": "Card", **fields("n", n=INT)}, NULL]},
        {"oneOf": [{"title": "Card", **fields("n", n=INT)}, {"title": "Cash", **fields("c", c=INT)}, NULL]},
        ["! data: may be Cash now"],
    ),
    "behind a reference": (
        {"$ref": "#/$defs/I", "$defs": {"I": ITEM}},
        {"$ref": "#/$defs/J", "$defs": {"J": ITEM_WITHOUT}},
        ["! data.cents: was always there, and may be missing now"],
    ),
    "a reference in place of the thing": (ITEM, {"$ref": "#/$defs/I", "$defs": {"I": ITEM}}, []),
    "a tree": (
        {"$ref": "#/$defs/N", "$defs": {"N": fields("n", n=INT, below=NODES)}},
        {"$ref": "#/$defs/N", "$defs": {"N": fields("n", n=TEXT, below=NODES)}},
        ["! data.n: was integer, is string"],
    ),
    "a tree where anything was": (
        {},
        {"$ref": "#/$defs/N", "$defs": {"N": {"anyOf": [NULL, {"type": "array", "items": {"$ref": "#/$defs/N"}}]}}},
        ["data: was anything, is only array", "data: was anything, is only null"],
    ),
    "all of": ({"allOf": [ITEM, fields("n", n=INT)]}, {"allOf": [ITEM, fields("", n=INT)]},
               ["! data.n: was always there, and may be missing now"]),
    "a reference that leads elsewhere": (
        {"$ref": "https://example.com/a"},
        {"$ref": "https://example.com/b"},
        ["! data: refers to another schema"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_changed_and_whether_it_breaks(case: str) -> None:
    old, new, expected = CASES[case]
    assert [f"! {one}" if one.breaking else str(one) for one in compare_schemas(old, new)] == expected


@pytest.mark.parametrize("case", CASES)
def test_a_schema_is_no_change_of_itself(case: str) -> None:
    for schema in CASES[case][:2]:
        assert compare_schemas(schema, schema) == []


def test_a_union_that_is_a_form_of_itself_ends() -> None:
    twice = {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [*[{"$ref": "#/$defs/A"}] * 20, NULL]}}}
    assert compare_schemas(twice, NULL) == []
    nothing_else = {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}] * 20}}}
    assert compare_schemas(nothing_else, nothing_else) == []


def test_a_chain_of_references_that_never_ends_is_left() -> None:
    round_about = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}}
    assert compare_schemas(round_about, round_about) == []
    itself = {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}]}}}
    assert compare_schemas(itself, {"$ref": "#/$defs/A", "$defs": {"A": {**INT, "allOf": [{"$ref": "#/$defs/A"}]}}})


scalars = st.one_of(
    st.sampled_from([INT, NUMBER, TEXT, NULL, {"type": "boolean"}, {}, {"type": ["integer", "null"]}]),
    st.builds(lambda low, high: {"type": "integer", "minimum": low, "maximum": low + high}, SMALL, SMALL),
    st.builds(lambda length: {"type": "string", "maxLength": length}, SMALL),
    st.builds(
        lambda values: {"enum": values}, st.lists(st.sampled_from(["a", "b", 1, 2, None]), min_size=1, unique=True)
    ),
)
schemas = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(
            lambda some, required: {
                "type": "object",
                "properties": some,
                "required": [n for n in required if n in some],
            },
            st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            st.lists(st.sampled_from("ab"), unique=True),
        ),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda forms: {"anyOf": forms}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda values: {"type": "object", "additionalProperties": values}, inner),
    ),
    max_leaves=4,
)
data = st.recursive(
    st.sampled_from([None, True, 0, 1, 2, 3, 1.5, "", "a", "b", "abcd"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)


@hypothesis.settings(
    max_examples=200, suppress_health_check=[hypothesis.HealthCheck.filter_too_much, hypothesis.HealthCheck.too_slow]
)
@hypothesis.given(schemas, schemas, st.lists(data, min_size=8, max_size=8))
def test_what_a_compatible_schema_allows_the_former_one_allowed(old: Any, new: Any, values: list[Any]) -> None:
    """But for fields of maps and objects that are new, which are compatible by rule: only known names are tried."""
    hypothesis.assume(not any(one.breaking for one in compare_schemas(old, new)))
    before, after = (jsonschema_rs.validator_for(schema) for schema in (old, new))
    known = [one for one in values if not _has_new_fields(old, one)]
    assert [one for one in known if after.is_valid(one) and not before.is_valid(one)] == []


def _has_new_fields(old: Any, value: Any) -> bool:
    """Tell whether a value has a field that the former schema did not name, at any place: the rule lets it come."""
    text = str(old)
    if isinstance(value, dict):
        return any(f"'{name}'" not in text or _has_new_fields(old, one) for name, one in value.items())
    return isinstance(value, list) and any(_has_new_fields(old, one) for one in value)


@hypothesis.settings(max_examples=200)
@hypothesis.given(schemas)
def test_no_schema_differs_from_itself(schema: Any) -> None:
    assert compare_schemas(schema, schema) == []
