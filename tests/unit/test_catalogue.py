"""Declaring event types, and checking data by them: each kind of model, what errors say, and what they never hold."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from typing_extensions import NotRequired, TypedDict  # noqa: UP035 - pydantic wants these below 3.12

import outbox
from outbox import ArgumentError, Catalogue, EventType, PayloadError, PayloadInvalid
from outbox.catalogue import collection
from outbox.event_types.parts import Part, parts_of
from outbox.recording.declared import OF_PROCESS
from outbox.recording.event import EventOptions


@pytest.fixture
def events() -> Catalogue:
    return Catalogue("shop")


class Size(enum.Enum):
    SMALL = "s"


class Item(pydantic.BaseModel):
    cents: int
    price: Decimal = Decimal("1.50")


class Order(pydantic.BaseModel):
    """An order, as pydantic has it."""

    items: list[Item]
    size: Size = Size.SMALL
    note: int | str | None = None
    by_name: dict[str, int] = {}


@dataclasses.dataclass
class DataItem:
    cents: int
    price: Decimal = Decimal("1.50")


@dataclasses.dataclass
class DataOrder:
    items: list[DataItem]


class DictItem(TypedDict):
    cents: int
    price: NotRequired[Decimal]


class DictOrder(TypedDict):
    items: list[DictItem]


class StructItem(msgspec.Struct):
    cents: int
    price: Decimal = Decimal("1.50")


class StructOrder(msgspec.Struct):
    items: list[StructItem]


SCHEMA = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/Item"}}},
    "required": ["items"],
    "$defs": {"Item": {"type": "object", "properties": {"cents": {"type": "integer"}}, "required": ["cents"]}},
}
MODELS: dict[str, Any] = {
    "pydantic": Order, "dataclass": DataOrder, "TypedDict": DictOrder, "Struct": StructOrder, "JSON Schema": SCHEMA,
}  # fmt: skip
INSTANCES: dict[str, Any] = {
    "pydantic": Order(items=[Item(cents=1)]),
    "dataclass": DataOrder([DataItem(1)]),
    "TypedDict": DictOrder(items=[DictItem(cents=1, price=Decimal("1.50"))]),
    "Struct": StructOrder([StructItem(1)]),
}
SECRET = "whsec_hunter2hunter2"


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"items": [{"cents": 1}, {"cents": 1}, {"cents": "12"}]}, r"^data\.items\[2\]\.cents: must be .*int"),
        ({"items": [{"cents": 1}, {}]}, r"^data\.items\[1\].*missing"),
        ({"items": [{"cents": SECRET}]}, r"^data\.items\[0\]\.cents: must be"),
        ({}, r"^data.*missing.*items|^data\.items: is missing"),
        ({"items": SECRET}, r"^data\.items: must be"),
        ([SECRET], r"^data: "),
        (outbox.RawJSON('{"items":[{"cents":1.5}]}'), r"^data\.items\[0\]\.cents: "),
    ],
)
def test_what_is_wrong_is_told_by_its_place_and_without_its_value(kind, data, told, events) -> None:
    order_placed = EventType("order.placed", MODELS[kind], catalogue=events)
    with pytest.raises(PayloadInvalid, match=told) as refused:
        order_placed.check(data)
    message = str(refused.value)
    assert message.endswith("(order.placed)")
    assert "hunter2" not in message
    assert "12" not in message
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


@pytest.mark.parametrize("place", ["cents", "unknown"])
@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "Struct"])  # msgspec reads them itself
def test_a_number_with_too_many_digits_is_told_and_judged_by_the_policy(kind, place, events, caplog) -> None:
    """Python reads no number of more than 4,300 digits, and a RawJSON may hold one."""
    many = "1" * 5000
    item, more = (many, "") if place == "cents" else ("1", f',"unknown":{many}')
    long = outbox.RawJSON(f'{{"items":[{{"cents":{item}}}]{more}}}')
    order_placed = EventType("order.placed", MODELS[kind], catalogue=events)
    with pytest.raises(PayloadInvalid, match=r"^data: holds a number that cannot be checked: .* \(order\.placed\)$"):
        order_placed.check(long)
    events.configure(validate="warn")
    assert order_placed.write(long, 10_000) == long.text
    assert "recorded all the same" in caplog.text


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_right_passes_as_plain_data(kind, events) -> None:
    EventType("order.placed", MODELS[kind], catalogue=events).check({"items": [{"cents": 1}]})


@pytest.mark.parametrize("kind", INSTANCES)
def test_an_instance_of_the_model_is_written_and_its_text_keeps_its_schema(kind, events) -> None:
    import jsonschema_rs

    order_placed = EventType("order.placed", MODELS[kind], catalogue=events)
    written = order_placed.write(INSTANCES[kind], 1000)
    assert json.loads(written)["items"][0]["cents"] == 1
    assert "1.5" in written
    assert jsonschema_rs.validator_for(order_placed.declaration.schema).is_valid(json.loads(written))


@pytest.mark.parametrize("broken", [DataOrder([DataItem("1")]), StructOrder([StructItem("1")])])  # type: ignore[arg-type]
def test_an_instance_that_nobody_checked_is_checked(broken, events) -> None:
    with pytest.raises(PayloadInvalid, match=r"^data\.items\[0\]\.cents: must be"):
        EventType("order.placed", type(broken), catalogue=events).check(broken)


def test_a_pydantic_model_that_was_changed_afterwards_is_refused_without_its_value(events) -> None:
    order = Order(items=[])
    order.items = SECRET  # type: ignore[assignment]
    with pytest.raises(PayloadError, match=r"^data: this Order holds what its fields do not allow") as refused:
        EventType("order.placed", Order, catalogue=events).check(order)
    assert refused.value.__suppress_context__


def test_a_union_is_told_by_its_place_and_not_by_its_members(events) -> None:
    with pytest.raises(PayloadInvalid, match=r"^data\.note: must be a valid integer; data\.note: must be a valid str"):
        EventType("order.placed", Order, catalogue=events).check({"items": [], "note": []})


def test_what_a_validator_of_the_application_says_holds_no_value(events) -> None:
    def refuse(value: str) -> str:
        raise ValueError(f"{value} is on no list")

    class Signed(pydantic.BaseModel):
        token: Annotated[str, pydantic.AfterValidator(refuse)]

    with pytest.raises(PayloadInvalid, match=r"^data\.token: value error, … is on no list \(a\)$"):
        EventType("a", Signed, catalogue=events).check({"token": SECRET})


def test_a_tag_is_not_told_either(events) -> None:
    class Cat(pydantic.BaseModel):
        kind: Literal["cat"]

    class Dog(pydantic.BaseModel):
        kind: Literal["dog"]

    class Pet(pydantic.BaseModel):
        it: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]

    with pytest.raises(PayloadInvalid, match=r"^data\.it: has a tag that is not declared"):
        EventType("a", Pet, catalogue=events).check({"it": {"kind": SECRET}})


def test_aliases_count_where_they_are_written(events) -> None:
    class Named(pydantic.BaseModel):
        of: int = pydantic.Field(alias="from")

    class Aliased(Named):
        model_config = pydantic.ConfigDict(serialize_by_alias=True)

    for model, name, other in ((Named, "of", "from"), (Aliased, "from", "of")):
        found = EventType(f"a.{name}", model, catalogue=events)
        assert list(found.declaration.schema["properties"]) == [name]
        assert found.write(model.model_validate({"from": 1}), 100) == f'{{"{name}":1}}'
        found.check({name: 1})
        with pytest.raises(PayloadInvalid, match=f"data.{name}: is missing"):
            found.check({other: 1})


def test_many_problems_are_told_in_short(events) -> None:
    with pytest.raises(PayloadInvalid) as refused:
        EventType("a", Order, catalogue=events).check({"items": [{}] * 300})
    assert str(refused.value).count("is missing") == 5
    assert "and 295 more" in str(refused.value)


SCHEMA_PROBLEMS = [
    ({"enum": ["a", 1]}, SECRET, 'must be one of ["a", 1]'), ({"const": None}, 1, "must be null"),
    ({"minimum": 1}, 0, "must be at least 1"), ({"exclusiveMaximum": 1}, 1, "must be less than 1"),
    ({"maximum": 1}, 2, "must be at most 1"), ({"exclusiveMinimum": 1}, 1, "must be more than 1"),
    ({"minLength": 2}, "a", "must have at least 2 characters"), ({"maxItems": 1}, [1, 2], "must have at most 1 items"),
    ({"maxLength": 2}, SECRET, "must have at most 2 characters"), ({"minItems": 1}, [], "must have at least 1 items"),
    ({"uniqueItems": True}, [1, 1], "must have no item twice"), ({"multipleOf": 2}, 3, "must be a multiple of 2"),
    ({"pattern": "^a"}, SECRET, "must match ^a"), ({"format": "date-time"}, SECRET, "must be a date-time"),
    ({"type": ["array", "null"]}, SECRET, "must be an array or null"), ({"not": {}}, SECRET, "does not keep not"),
    ({"anyOf": [{"type": "null"}]}, SECRET, "is none of the forms"), ({"oneOf": [{}, {}]}, SECRET, "is none of the"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "value", "told"), SCHEMA_PROBLEMS, ids=[next(iter(one[0])) for one in SCHEMA_PROBLEMS]
)
def test_words_for_each_rule_of_json_schema(schema, value, told, events) -> None:
    found = EventType("a", {"properties": {"v": schema}}, catalogue=events)
    with pytest.raises(PayloadInvalid) as refused:
        found.check({"v": value})
    assert f"data.v: {told}" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_field_that_is_not_declared_is_named(events) -> None:
    found = EventType("a", {"properties": {"a": {}}, "additionalProperties": False}, catalogue=events)
    with pytest.raises(PayloadInvalid, match=r"^data\['b c'\]: is not declared \(a\)$"):
        found.check({"b c": SECRET})


WRONG: list[tuple[str, dict[str, Any]]] = [
    (r"^model: must be a class or a JSON Schema \(a mapping\), not 3", {"model": 3}),
    ("^model: int is none; give a pydantic model", {"model": int}),
    ("^model: is no JSON Schema: .*'type'", {"model": {"type": "foo"}}),
    ("^model: is no JSON Schema: .*nothing is fetched", {"model": {"$ref": "http://127.0.0.1:1/a.json"}}),
    ("^model: is no JSON Schema: .*/q", {"model": {"$ref": "#/q"}}),
    ("^model: its JSON Schema is no JSON", {"model": {"const": {1, 2}}}),
    ("^model: its JSON Schema is no JSON: a key is no text", {"model": {1: 2}}),
    ("^model: its JSON Schema is 262.* bytes", {"model": {"description": "a" * 262_144}}),
    ("^description: must be a str", {"description": 1}),
    ("^description: is 9000 bytes", {"description": "a" * 9000}),
    ("^deprecated: is empty", {"deprecated": " "}),
    ("^version: must be a whole number from 1 on, not 0", {"version": 0}),
    ("^version: must be a whole number from 1 on, not True", {"version": True}),
    ("^validate: must be one of off, warn, strict, not 'no'", {"validate": "no"}),
    ("^catalogue: must be an outbox.Catalogue, not 'shop'", {"catalogue": "shop"}),
    (r"^example: data\.items: is missing", {"model": Order, "example": {}}),
]


@pytest.mark.parametrize(("told", "arguments"), WRONG, ids=[one[0][:40] for one in WRONG])
def test_a_wrong_declaration_is_refused_by_the_name_of_the_argument(told, arguments, events) -> None:
    with pytest.raises(ArgumentError, match=told):
        EventType("order.placed", **{"catalogue": events, **arguments})
    assert len(events) == 0


@pytest.mark.parametrize("name", ["relay.paused", "a b", "", "a" * 129])
def test_a_name_is_one_that_can_be_recorded(name, events) -> None:
    with pytest.raises(ArgumentError, match=r"^name: "):
        EventType(name, catalogue=events)


@pytest.mark.parametrize(
    ("told", "arguments"),
    [
        ("^name: 'a b' is no word", {"name": "a b"}),
        ("^closed: must be True or False, not 1", {"closed": 1}),
        ("^validate: must be one of", {"validate": "no"}),
        ("^outbox: must be an outbox.Outbox", {"outbox": 3}),
    ],
)
def test_a_wrong_catalogue_is_refused(told, arguments) -> None:
    with pytest.raises(ArgumentError, match=told):
        Catalogue(**arguments)


def test_a_name_stands_for_one_thing(events) -> None:
    first = EventType("order.placed", Order, catalogue=events)
    EventType("order.placed", Order, catalogue=events)  # as when a module is loaded anew
    with pytest.raises(ArgumentError, match=r"^name: order.placed is declared already, and otherwise"):
        EventType("order.placed", Order, description="another", catalogue=events)
    assert [one.name for one in events] == ["order.placed"]
    assert events.get("order.placed").declaration == first.declaration
    assert "order.placed" in events
    assert events.get("order") is None
    assert repr(events) == "Catalogue('shop', 1 types)"
    assert repr(first) == "EventType('order.placed', version=1)"


def test_types_are_in_the_process_catalogue_unless_told_otherwise(default, events) -> None:
    mine = EventType("mine")
    EventType("yours", catalogue=events)
    assert [*default] == [mine]
    assert mine.catalogue is default
    assert default.outbox is outbox.record.__self__


def test_record_asks_nothing_while_nothing_is_declared(default) -> None:
    assert OF_PROCESS.write is None
    EventType("mine")
    assert OF_PROCESS.write is not None
    default.clear()
    assert OF_PROCESS.write is None
    default.configure(closed=True)
    assert OF_PROCESS.write is not None


@pytest.mark.parametrize("by", ["type", "catalogue"])
def test_the_policy_refuses_logs_or_lets_it_be(by, events, caplog) -> None:
    def written(policy: Any) -> str:
        own = Catalogue("own", validate=policy if by == "catalogue" else "strict")
        found = EventType("a", Order, catalogue=own, validate=policy if by == "type" else None)
        return found.write({"items": SECRET}, 100)

    with pytest.raises(PayloadInvalid):
        written("strict")
    assert caplog.text == ""
    assert json.loads(written("warn")) == {"items": SECRET}
    assert "recorded all the same: data.items: must be" in caplog.text
    assert "hunter2" not in caplog.text
    caplog.clear()
    assert json.loads(written("off")) == {"items": SECRET}
    assert caplog.text == ""


def test_what_cannot_be_json_is_refused_under_every_policy(events) -> None:
    for number, policy in enumerate(("off", "warn", "strict")):
        found = EventType(f"a{number}", Order, validate=policy, catalogue=events)  # type: ignore[arg-type]
        with pytest.raises(PayloadError, match=r"data\.items: object has no JSON form"):
            found.write({"items": object()}, 100)
        with pytest.raises(outbox.PayloadTooLarge):
            found.write({"items": "a" * 100}, 50)


def test_a_deprecated_type_warns_once_and_names_who_records_it(events) -> None:
    found = EventType("a", deprecated="record b", catalogue=events)
    with pytest.warns(DeprecationWarning, match=r"^event type a is deprecated: record b$") as told:
        found.write({}, 100)
    assert told[0].filename == __file__
    found.write({}, 100)


def test_a_closed_catalogue_refuses_others_by_its_policy(events, caplog) -> None:
    EventType("order.placed", catalogue=events)
    assert events.write("order.plced", 1, 10) == "1"
    events.configure(closed=True)
    with pytest.raises(outbox.RecordError, match=r"^type: order.plced is not in the catalogue, .*mean order.placed\?$"):
        events.write("order.plced", 1, 10)
    events.configure(validate="warn")
    assert events.write("order.plced", 1, 10) == "1"
    assert "did you mean order.placed?" in caplog.text


def test_the_settings_of_an_outbox_are_taken_over(events) -> None:
    assert events.outbox.max_payload_bytes == outbox.Outbox().max_payload_bytes
    assert Catalogue("b", outbox=outbox.Outbox(max_payload_bytes=5)).outbox.max_payload_bytes == 5
    with pytest.raises(ArgumentError, match=r"^catalogue: must be an outbox.Catalogue"):
        outbox.Outbox(catalogue=3)  # type: ignore[arg-type]


def test_examples_are_kept_as_they_would_be_sent(events) -> None:
    found = EventType("a", Order, example=Order(items=[Item(cents=1)]), catalogue=events)
    assert json.loads(found.declaration.example or "")["items"] == [{"cents": 1, "price": "1.50"}]
    assert EventType("b", example=None, catalogue=events).declaration.example is None


PARTS: list[tuple[Any, list[Part]]] = [
    (None, []),
    ({"type": "string"}, []),
    (
        Order,
        [
            Part("items", "array of object", required=True),
            Part("items[].cents", "integer", required=True),
            Part("items[].price", "string", required=False),
            Part("size", '"s"', required=False),
            Part("note", "integer or string or null", required=False),
            Part("by_name", "object", required=False),
            Part("by_name.*", "integer", required=False),
        ],
    ),
    ({"items": {"type": "integer"}}, [Part("[]", "integer", required=False)]),
    (
        {"properties": {"at": {"type": "string", "format": "date-time", "description": "When."}, "x": True}},
        [Part("at", "string (date-time)", required=False, description="When."), Part("x", "anything", required=False)],
    ),
]


@pytest.mark.parametrize(("model", "expected"), PARTS, ids=["none", "text", "model", "list", "words"])
def test_a_schema_is_shown_by_its_parts(model, expected, events) -> None:
    assert list(parts_of(EventType("a", model, catalogue=events).declaration.schema)) == expected


def test_a_schema_that_holds_itself_is_shown_to_an_end() -> None:
    node = {"properties": {"below": {"$ref": "#"}, "of": {"type": "array", "items": {"$ref": "#"}}}}
    assert len(parts_of(node)) == 500


def test_libraries_of_models_are_loaded_when_a_model_needs_them() -> None:
    program = (
        "import sys, outbox; outbox.EventType('a', example=1); "
        "print({'pydantic', 'msgspec', 'jsonschema_rs'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(("missing", "model"), [("pydantic", Order), ("jsonschema_rs", {}), ("msgspec", StructOrder)])
def test_a_library_that_is_not_there_is_named(missing, model, monkeypatch: pytest.MonkeyPatch, events) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ArgumentError, match=rf"^model: needs {missing}: pip install 'outbox-relay\[catalogue\]'$"):
        EventType("a", model, catalogue=events)


def test_every_policy_is_known_to_the_check() -> None:
    check: Callable[[object], None] = collection.check_validation
    for policy in (None, "off", "warn", "strict"):
        check(policy)


def test_a_type_takes_every_option_of_record() -> None:
    parameters = inspect.signature(outbox.record).parameters.values()
    options = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert set(EventOptions.__annotations__) == options
