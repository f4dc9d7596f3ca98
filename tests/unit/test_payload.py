"""From Python values to exact JSON text."""

from __future__ import annotations

import inspect
import json
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from enum import Enum, IntEnum, StrEnum
from typing import NamedTuple
from unittest.mock import MagicMock
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import PayloadError, PayloadTooLarge
from outbox.recording.payload import RawJSON, _Writer, encode
from outbox.recording.plain_data import MAX_DEPTH, encode_plain

LIMIT = 262_144
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ORDINARY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5) | st.tuples(inner, inner),
)
ANYTHING = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.decimals() | st.datetimes() | st.uuids() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | inner.map(lambda value: RawJSON(repr(value)))
    ),
)
BIG = 10**25
ZONE = timezone(timedelta(hours=5, minutes=30))


class Color(Enum):
    RED = "red"
    PAIR = (1, "two")


class Word(StrEnum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


class MixedIn(str, Enum):  # noqa: UP042 - what StrEnum replaced is still about
    RED = "red"


@dataclass
class Line:
    sku: str
    price: Decimal
    tags: list = field(default_factory=list)


class Point(NamedTuple):
    x: int
    y: int


class Order(pydantic.BaseModel):
    id: UUID
    at: datetime
    total: Decimal
    items: set[int] = set()


SOME_ID = UUID("0190b7a4-0000-7000-8000-000000000001")

EXACT = {
    "dict": ({"b": 1, "a": [True, None, 1.5, "é"]}, '{"b":1,"a":[true,null,1.5,"é"]}'),
    "empty": ([{}, [], "", ()], '[{},[],"",[]]'),
    "str is a JSON string": ('{"a":1}', '"{\\"a\\":1}"'),
    "control characters": ("\x01\t\n\x7f\u2028", '"\\u0001\\t\\n\x7f\u2028"'),
    "text that looks like an escaped NUL": (["\\u0000"], '["\\\\u0000"]'),
    "null": (None, "null"),
    "large int": ([BIG], f"[{BIG}]"),
    "negative zero": (-0.0, "-0.0"),
    "ordered dict": (OrderedDict(z=1, a=2), '{"z":1,"a":2}'),
    "tuple": (Point(1, 2), "[1,2]"),
    "aware datetime": (datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC), '"2026-01-02T03:04:05.000600Z"'),
    "datetime with offset": (datetime(2026, 1, 2, 3, 4, 5, tzinfo=ZONE), '"2026-01-02T03:04:05+05:30"'),
    "offset with seconds": (
        datetime(1900, 1, 1, tzinfo=timezone(timedelta(seconds=61))),
        '"1899-12-31T23:58:59Z"',
    ),
    "date": (date(2026, 1, 2), '"2026-01-02"'),
    "uuid": (SOME_ID, '"0190b7a4-0000-7000-8000-000000000001"'),
    "decimal": ([Decimal("19.90"), Decimal("1E+3"), Decimal("-0"), Decimal("1E-9")], "[19.90,1E+3,-0,1E-9]"),
    "enum": ([Color.RED, Color.PAIR, Word.RED, Number.ONE, MixedIn.RED], '["red",[1,"two"],"red",1,"red"]'),
    "enum as key": ({Word.RED: 1, MixedIn.RED: 2}, '{"red":2}'),
    "dataclass": (Line("A", Decimal("1.10")), '{"sku":"A","price":1.10,"tags":[]}'),
    "dataclass inside": (
        {"lines": [Line("A", Decimal(1), [SOME_ID])]},
        f'{{"lines":[{{"sku":"A","price":1,"tags":["{SOME_ID}"]}}]}}',
    ),
    "pydantic": (
        Order(id=SOME_ID, at=datetime(2026, 1, 2, tzinfo=UTC), total=Decimal("1.10"), items={3}),
        f'{{"id":"{SOME_ID}","at":"2026-01-02T00:00:00Z","total":"1.10","items":[3]}}',
    ),
    "raw": (RawJSON(' {"a" : 1.0e5,"n":12345678901234567890.10}\n'), ' {"a" : 1.0e5,"n":12345678901234567890.10}\n'),
    "raw inside": ({"a": [RawJSON("[ 1 ]"), 2]}, '{"a":[[ 1 ],2]}'),
    "raw scalar": (RawJSON('"\\ud83d\\ude00"'), '"\\ud83d\\ude00"'),
}  # fmt: skip

REFUSED = {
    "set": ({"a": {1}}, r"^data\.a: set"),
    "bytes": ([b""], r"^data\[0\]: bytes"),
    "object": (object(), "^data: object"),
    "class": (Line, "^data: type"),
    "time": ({"at": time()}, r"^data\.at: time"),
    "mock": (MagicMock(), "^data: MagicMock"),
    "naive datetime": ([datetime(2026, 1, 1)], r"^data\[0\]: .*time zone"),  # noqa: DTZ001
    "past the calendar": (
        datetime.min.replace(tzinfo=timezone(timedelta(seconds=61))),
        "^data: .*years 1 to 9999",
    ),
    "nan": ({"items": [0, 1, 2, {"price": float("nan")}]}, r"^data\.items\[3\]\.price: NaN"),
    "infinity": (float("-inf"), "^data: NaN and Infinity"),
    "decimal nan": (Decimal("sNaN"), "^data: NaN"),
    "too many digits": ([10**5000], r"^data\[0\]: .*digits"),
    "bool key": ({True: 1}, "^data: a key is of type bool"),
    "None key": ({"a": {None: 1}}, r"^data\.a: a key is of type NoneType"),
    "float key": ({"a b": {1.5: 1}}, r"^data\['a b'\]: a key"),
    "tuple key": ({(1,): 1}, "^data: a key is of type tuple"),
    "second key": ({"a": 1, 2: 3}, "^data: a key is of type int"),
    "NUL": ({"a": "x\0y"}, r"^data\.a: the text has a NUL"),
    "NUL in a key": ({"a": {"x\0y": 1}}, r"^data\.a: a key has a NUL"),
    "surrogate": ({"ключ": "\udc80"}, r"^data\['\\u043a.*surrogate"),
    "surrogate pair as two": ("\ud83d\ude00", "surrogate"),
    "raw bytes": (RawJSON(b"{}"), "^data: RawJSON takes str, not bytes"),
    "raw empty": (RawJSON(""), "not strict JSON"),
    "raw two values": (RawJSON("1 2"), "not strict JSON"),
    "raw NaN": (RawJSON("[NaN]"), "not strict JSON: NaN"),
    "raw -Infinity": (RawJSON("-Infinity"), "not strict JSON"),
    "raw single quotes": (RawJSON("{'a':1}"), "not strict JSON"),
    "raw BOM": (RawJSON("\ufeff1"), "not strict JSON"),
    "raw newline in text": (RawJSON('"\n"'), "not strict JSON"),
    "raw duplicate": ({"x": RawJSON('{"a":1,"\\u0061":2}')}, r"^data\.x: .*same key twice"),
    "raw NUL": ({"x": RawJSON('{"a":["\\u0000"]}')}, r"^data\.x\.a\[0\]: .*NUL"),
    "raw surrogate": (RawJSON('"\\udc00"'), "surrogate"),
    "raw unescaped surrogate": (RawJSON('"\udc00"'), "surrogate"),
    "raw depth": (RawJSON("[" * 101 + "]" * 101), "deeper than 100"),
    "raw unclosed": (RawJSON('["' + '\\"' * 50_000), "not strict JSON"),
    "raw brackets": (RawJSON("[" * 100_000), "deeper than 100"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_exact_text(name):
    data, text = EXACT[name]
    assert encode(data, LIMIT) == text


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_path(name):
    data, message = REFUSED[name]
    with pytest.raises(PayloadError, match=message) as error:
        encode(data, LIMIT)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


@given(ORDINARY)
def test_both_encoders_write_what_json_reads_back(data):
    fast, careful = encode_plain(data, LIMIT), _Writer(LIMIT).write(data)
    assert careful == json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    assert fast == careful or (fast is None and "\\u0000" in careful)
    assert encode(RawJSON(careful), LIMIT) == careful or "same key" in careful


@given(ANYTHING)
def test_anything_is_either_strict_json_or_a_payload_error(data):
    try:
        text = encode(data, LIMIT)
    except PayloadError as error:
        assert str(error).startswith("data")
    else:
        json.loads(text, parse_constant=pytest.fail)
        assert "\0" not in text
        text.encode()


@given(st.integers(0, 30), TEXT)
def test_the_limit_is_on_bytes_and_exact(spare, text):
    size = len(encode(text, LIMIT).encode())
    assert encode(text, size + spare)
    for data in (text, [text, Decimal(1)], RawJSON(encode(text, LIMIT))):
        size = len(encode(data, LIMIT).encode())
        assert encode(data, size)
        with pytest.raises(PayloadTooLarge, match=f"max_payload_bytes is {size - 1}"):
            encode(data, size - 1)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner, SOME_ID)])
def test_depth_is_counted_without_recursion(wrap):
    data = wrap(1)
    for _ in range(MAX_DEPTH - 1):
        data = wrap(data)
    assert encode(data, LIMIT)
    for extra in (1, 100_000):
        deeper = data
        for _ in range(extra):
            deeper = [deeper]
        with pytest.raises(PayloadError, match="deeper than 100"):
            encode(deeper, LIMIT)


def test_raw_json_adds_to_the_depth_around_it():
    raw = RawJSON("[" * 60 + '"[[["' + "]" * 60)
    data = raw
    for _ in range(40):
        data = [data]
    assert encode(data, LIMIT)
    with pytest.raises(PayloadError, match="deeper than 100"):
        encode([data], LIMIT)


def test_a_deep_caller_does_not_matter():
    def descend(left):
        return encode({"a": [1, {"b": 2}]}, LIMIT) if left == 0 else descend(left - 1)

    frames = 0
    frame = inspect.currentframe()
    while frame:
        frames, frame = frames + 1, frame.f_back
    assert descend(sys.getrecursionlimit() - frames - 40) == '{"a":[1,{"b":2}]}'


def test_cycles_are_named_where_they_close():
    order: dict = {"lines": [{}]}
    order["lines"][0]["order"] = order
    with pytest.raises(PayloadError, match=r"^data\.lines\[0\]\.order: .*cycle"):
        encode(order, LIMIT)


def test_the_same_value_twice_is_no_cycle():
    shared = {"a": SOME_ID}
    assert encode([shared, shared], LIMIT) == f'[{{"a":"{SOME_ID}"}},{{"a":"{SOME_ID}"}}]'


def test_shared_values_cannot_grow_without_bound():
    data: list = ["x"]
    for _ in range(90):
        data = [data, data]
    with pytest.raises(PayloadTooLarge):
        encode(data, LIMIT)


def test_a_model_that_fails_to_dump_is_a_payload_error():
    class Node(pydantic.BaseModel):
        child: Node | None = None

    node = Node()
    node.child = node
    with pytest.raises(PayloadError, match=r"^data\.node: .*Node"):
        encode({"node": node}, LIMIT)


def test_decimal_ignores_the_callers_context():
    with localcontext(prec=2, capitals=0):
        assert encode(Decimal("1.2345E+30"), LIMIT).upper() == "1.2345E+30"


def test_neither_errors_nor_reprs_show_values():
    with pytest.raises(PayloadError) as error:
        encode({"card": {"4111 1111", "secret"}}, LIMIT)
    assert "secret" not in str(error.value)
    assert "secret" not in repr(RawJSON('"secret"'))
