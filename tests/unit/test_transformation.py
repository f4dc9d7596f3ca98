"""Transformations: the language, its errors, exact numbers, and what a hostile expression can cost."""

from __future__ import annotations

import gc
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.hostile import HOSTILE
from outbox.errors import SubscriptionError
from outbox.subscriptions.checks import check_transformation
from outbox.transformation import MAX_BYTES, MAX_DEPTH, MAX_NODES, SIGNATURES, ExpressionError, parse
from relay.message.body import body_of
from relay.message.transformation import json_text, transformation
from relay.message.transformation.budget import MAX_STEPS, Budget, TransformationError
from relay.message.transformation.evaluate import compiled
from relay.message.transformation.functions import FUNCTIONS
from relay.message.transformation.transformation import Transformation
from relay.model.event import EventParts

SUITES = json.loads((Path(__file__).parents[1] / "cases" / "jmespath.json").read_text())["suites"]
CASES = [
    pytest.param(suite["given"], case, id=f"{name}-{number}-{place}")
    for name, suites in SUITES.items()
    for number, suite in enumerate(suites)
    for place, case in enumerate(suite["cases"])
]
BOOK = (
    b'{"items":[{"sku":"a","price":9.90,"tags":["x"]},{"sku":"b","price":12.50},{"sku":"c","price":1e2}],"note":null}'
)

FUNCTIONS_OF_ONE = st.sampled_from(
    ["type", "to_array", "not_null", "length", "keys", "values", "sort", "reverse", "sum", "max", "to_string", "abs"]
)
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.sampled_from(["", "a", "b", "xyz"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=25,
)
EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "c", "@", "*", "[*]", "[]", "`3`", "'xyz'", "`[1,2]`", "[0]", "[-1]", "[1:]"]),
    lambda inner: st.one_of(
        st.tuples(inner, NAMES).map(".".join),
        st.tuples(inner, st.sampled_from(["[0]", "[-2]", "[*]", "[]", "[:2]", ".*", "[::2]"])).map("".join),
        st.tuples(inner, st.sampled_from([" | ", " || ", " && ", " == ", " != "]), inner).map("".join),
        st.tuples(inner, inner).map("[{0[0]}, {0[1]}]".format),
        st.tuples(inner, inner).map("{{x: {0[0]}, y: {0[1]}}}".format),
        st.tuples(inner, inner).map("{0[0]}[?{0[1]}]".format),
        st.tuples(inner, inner).map("{0[0]}.[{0[1]}]".format),
        inner.map("({})".format),
        inner.map("!{}".format),
        st.tuples(FUNCTIONS_OF_ONE, inner).map("{0[0]}({0[1]})".format),
        st.tuples(inner, inner).map("map(&({0[0]}), {0[1]})".format),
        st.tuples(inner, NAMES).map("sort_by({0[0]}, &{0[1]})".format),
    ),
    max_leaves=8,
)  # fmt: skip


def event(data: bytes = BOOK, *, key: str | None = "k-1") -> EventParts:
    return EventParts(b"evt_01jd3v0000e008000000000000", b"order.created", "acme", key, 123_456_789, data)


def test_it_sees_metadata_where_there_are_some_and_null_where_not() -> None:
    given = replace(event(), metadata=b'{"user": "u-17"}')
    assert Transformation("metadata.user").of(given).payload == b'"u-17"'
    assert Transformation("metadata.user").of(event()).payload == b"null"
    assert "metadata" not in json.loads(Transformation("@").of(event()).payload), "the body of before"


def made(expression: str, data: bytes = BOOK) -> str:
    return Transformation(expression).of(event(data)).payload.decode()


def evaluated(expression: str, given: Any) -> Any:
    text = json.dumps(given)
    value = json_text.payload_of(text)
    tree = compiled(parse(expression))
    budget = Budget(text, value)
    budget.spend(tree.steps)
    return json.loads(json_text.text_of(tree.run(value, budget), budget))


def spent(expression: str, data: bytes) -> tuple[int, str]:
    """How many steps an evaluation took, and how it ended."""
    text = data.decode()
    value = json_text.payload_of(text)
    tree = compiled(parse(expression))
    budget = Budget(text, value)
    try:
        budget.spend(tree.steps)
        json_text.bytes_of(tree.run({"data": value}, budget), budget)
    except TransformationError as error:
        return MAX_STEPS - budget.left, str(error)
    return MAX_STEPS - budget.left, "done"


SLICE_BEHIND_INDEX = re.compile(r"\[\s*-?\d+\s*\]\s*\[\s*-?\d*\s*:")


class TestLanguage:
    @pytest.mark.parametrize(("given", "case"), CASES)
    def test_it_passes_the_suite_of_the_specification(self, given: Any, case: dict[str, Any]) -> None:
        if "error" in case:
            with pytest.raises((ExpressionError, TransformationError)):
                evaluated(case["expression"], given)
        else:
            assert evaluated(case["expression"], given) == case["result"]

    @settings(max_examples=400)
    @given(EXPRESSIONS, VALUES)
    def test_the_reference_library_finds_the_same(self, expression: str, value: Any) -> None:
        try:
            tree = parse(expression)
        except ExpressionError:
            with pytest.raises(ValueError, match=""):
                jmespath.compile(expression)
            return
        try:
            ours = evaluated(expression, value)
        except TransformationError:
            ours = "failed"
        try:
            theirs = json.loads(json.dumps(jmespath.search(expression, value)))
        except (ValueError, TypeError, AttributeError):
            theirs = "failed"
        if SLICE_BEHIND_INDEX.search(expression):  # there such a slice is no projection
            return
        if _has(tree, "compare"):  # there 1 equals true inside of lists and objects
            assert (ours == "failed") is (theirs == "failed")
        else:
            assert _kinds(ours) == _kinds(theirs)

    def test_every_function_is_there(self) -> None:
        assert FUNCTIONS.keys() == SIGNATURES.keys()

    @pytest.mark.parametrize(
        ("expression", "result"),
        [
            ("`1` == `1.0`", True), ("`1` == `true`", False), ("[`1`] == [`true`]", False), ("`0` == `false`", False),
            ("`{\"a\": 1, \"b\": 2}` == `{\"b\": 2, \"a\": 1}`", True), ("`1` < 'a'", None), ("'a' < 'b'", True),
            ("`1.10` == `1.1`", True), ("`1e400` > `1`", True), ("`1e-400` > `0`", True), ("'é' > 'z'", True),
            ("to_number('1_0')", None), ("to_number('-0.5e3')", -500), ("contains('abc', `1`)", False),
            ("avg(`[]`)", None), ("floor(`-1.5`)", -2), ("ceil(`-1.5`)", -1), ("abs(`-1.50`)", 1.5),
        ],
    )  # fmt: skip
    def test_values_of_another_kind_never_convert(self, expression: str, result: Any) -> None:
        assert evaluated(expression, {}) == result


def _has(node: Any, kind: str) -> bool:
    return node.kind == kind or any(_has(part, kind) for part in node.parts)


def _kinds(value: Any) -> Any:
    """A value in which true is not 1."""
    if isinstance(value, list):
        return [_kinds(item) for item in value]
    if isinstance(value, dict):
        return {name: _kinds(item) for name, item in value.items()}
    return (isinstance(value, bool), value)


class TestWhatIsSent:
    def test_the_expression_sees_the_whole_event(self) -> None:
        whole = json.loads(made("@", b'{"a": 1}'))
        assert whole == {
            "id": "evt_01jd3v0000e008000000000000", "type": "order.created", "tenant": "acme", "key": "k-1",
            "timestamp": "2000-01-01T00:02:03.456789Z", "data": {"a": 1},
        }  # fmt: skip
        assert Transformation("key").of(event(key=None)).payload == b"null"

    def test_the_result_takes_the_place_of_the_data_in_the_body(self) -> None:
        body = body_of(Transformation("data.items[*].sku").of(event()))
        assert body == b'{"type":"order.created","timestamp":"2000-01-01T00:02:03.456789Z","data":["a","b","c"]}'

    @pytest.mark.parametrize(
        ("expression", "result"),
        [
            ("data.items[*].price", "[9.90,12.50,1e2]"),
            ("sort_by(data.items, &price)[-1].price", "1e2"),
            ("sum(data.items[*].price)", "122.40"),
            ("{r: `1.10`, big: `12345678901234567890.123456789`}", '{"r":1.10,"big":12345678901234567890.123456789}'),
            ("to_string(data.items[0])", r'"{\"sku\":\"a\",\"price\":9.90,\"tags\":[\"x\"]}"'),
            ("data.items[?price > `9.9`] | [0].price", "12.50"),
        ],
    )  # fmt: skip
    def test_numbers_keep_their_digits(self, expression: str, result: str) -> None:
        assert made(expression) == result

    @pytest.mark.parametrize(
        "number", ["-0.0", "1E+2", "0.10000000000000000000000000000000001", "1e999999999", "9" * 4500, "1" * 50 + ".5"]
    )
    def test_any_number_passes_as_it_was_written(self, number: str) -> None:
        assert (
            made("{n: data.n, all: data}", b'{"n": %b}' % number.encode()) == f'{{"n":{number},"all":{{"n":{number}}}}}'
        )

    def test_text_goes_out_as_utf_8_and_compact(self) -> None:
        assert made("data", '{"ä": [1, "\\u00e9\\u2028\\n"]}'.encode()) == '{"ä":[1,"é\u2028\\n"]}'

    def test_text_that_looks_like_our_marks_stays_text(self) -> None:
        assert made("data", b'{"a":"\\u0000abc:1.5","b":1.5}') == '{"a":"\\u0000abc:1.5","b":1.5}'

    def test_an_event_keeps_what_was_made_of_it_and_only_what_is_small(self) -> None:
        one = event()
        first = Transformation("data.items").of(one)
        assert Transformation("data.items").of(one) is first
        large = event(b'"%b"' % (b"x" * 9000))
        wide = Transformation("[data, data]")
        assert wide.of(large) is not wide.of(large)
        assert wide.of(large).payload == wide.of(large).payload
        for number in range(transformation.MAX_KEPT_RESULTS + 5):
            Transformation(f"`{number}`").of(one)
        assert len(one.transformed or ()) == transformation.MAX_KEPT_RESULTS

    def test_compiled_expressions_are_kept_up_to_a_bound_and_made_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = transformation.Kept(100)
        monkeypatch.setattr(transformation, "KEPT", kept)
        all_of_them = [Transformation(f"data.a{number} || data.b") for number in range(100)]
        assert 0 < len(kept) < 20
        assert 0 < kept.steps <= 100
        assert {one.of(event(b'{"b":1}')).payload for one in all_of_them} == {b"1"}


class TestRefusedWhenSubscribed:
    @pytest.mark.parametrize(
        ("expression", "told"),
        [
            ("data.items[", "at character 12: the end of the expression stands where"),
            ("lenght(data)", "at character 1 (lenght(data)): there is no function lenght(); do you mean length()"),
            ("data | sort_by(@, price)", "at character 19 (price)): argument 2 of sort_by() is an expression (&…)"),
            ("length(a, b)", "at character 1 (length(a, b)): length() takes 1 argument, here are 2"),
            ("length(a b)", "at character 10 (b)): a name stands where ) belongs"),
            ("{a: b c: d}", "at character 7 (c: d}): a name stands where } belongs"),
            ("{a: b, a: c}", "at character 8 (a: c}): the member 'a' is there already"),
            ("a = b", "at character 3 (= b): = compares nothing; write =="),
            ("`abc`", "at character 1 (`abc`): a literal in backticks must hold JSON"),
            ("`NaN`", "a literal in backticks must hold JSON"),
            ('"\\ud800"', "a quoted name holds a lone surrogate"),
            ("'abc", "this raw string is never closed"),
            ("a[::0]", "a slice by steps of 0 never ends"),
            ("&a", "& stands only before an argument"),
            ("length(&a)", "argument 1 of length() is a value; leave the & out"),
            ("a[%s]" % ("9" * 101), "a number of 101 digits; the limit is 100"),
            ("a ~ b", "at character 3 (~ b): '~' means nothing here"),
            ("(" * 200, f"nested deeper than {MAX_DEPTH} levels"),
            ("!" * 200 + "a", f"nested deeper than {MAX_DEPTH} levels"),
            ("a" + "[*]" * 60, f"nested deeper than {MAX_DEPTH} levels"),
            ("[" * 60 + "a" + "]" * 60, f"nested deeper than {MAX_DEPTH} levels"),
            ("a" + "||a" * 60, f"nested deeper than {MAX_DEPTH} levels"),
            (".".join("a" * MAX_NODES), f"more than {MAX_NODES} parts"),
            ("a" * (MAX_BYTES + 1), f"is {MAX_BYTES + 1} bytes, at most {MAX_BYTES} are allowed"),
            ("`%s`" % ("[" * 4000), "a literal in backticks"),
            ("   ", "it is empty; write @ for the whole event"),
            ("a\0b", "NUL"),
            (5, "must be a str, not int"),
        ],
    )  # fmt: skip
    def test_one_error_says_where_and_what_is_wrong(self, expression: Any, told: str) -> None:
        with pytest.raises(SubscriptionError) as caught:
            check_transformation("transformation", expression)
        assert str(caught.value).startswith("transformation: ")
        assert told in str(caught.value)

    def test_no_text_is_none(self) -> None:
        assert check_transformation("transformation", "") is None

    def test_a_long_chain_of_names_and_pipes_is_not_deep(self) -> None:
        assert parse(".".join("a" * 240)).depth == 2
        assert parse("|".join("a" * 240)).depth == 2

    @settings(max_examples=300)
    @given(st.text(alphabet="ab.[]*?:(){}|&!<>=@,'\"`-12\\ \u00e9", max_size=60))
    def test_whatever_is_accepted_can_be_evaluated(self, expression: str) -> None:
        try:
            check_transformation("transformation", expression)
            Transformation(expression).of(event())
        except (SubscriptionError, TransformationError):
            pass


class TestFails:
    @pytest.mark.parametrize(
        ("expression", "data", "told"),
        [
            ("sort_by(data, &p)", b'[{"p":1},{"p":"x"}]', "sort_by() at character 1: it compares numbers with numbers"),
            ("length(data.a)", b"{}", "length() at character 1: argument 1 is null; it takes a string or an array or"),
            ("join('', data)", b"[1]", "join() at character 1: it takes an array of strings, and this one holds"),
            ("sum(data)", b'["1"]', "sum() at character 1: it takes an array of numbers, and this one holds a string"),
            ("sum(data)", b"[1e999999999,1e999999999]", "sum() at character 1: the sum is out of range"),
            ("floor(data)", b"1e999999999", "a number of more than 400 digits cannot be rounded"),
            ("floor(data)", b"1e99999999999999999999", "a number's exponent is out of range"),
            ("data", b"[" * 200_000 + b"]" * 200_000, "nested deeper than can be read"),
            ("data", b'"\\ud800"', "the result holds a lone surrogate"),
            ("data", b'"%b"' % (b"x" * (1 << 20)), "the event's data has 1,048,578 bytes"),
            ("[data,data,data]", b'"%b"' % (b"x" * 40_000), "the result has more than 80,004 characters"),
        ],
    )  # fmt: skip
    def test_an_error_says_why_and_names_no_value(self, expression: str, data: bytes, told: str) -> None:
        with pytest.raises(TransformationError) as caught:
            made(expression, data)
        assert told in str(caught.value)

    def test_the_collector_is_as_it_was_before(self) -> None:
        assert gc.isenabled()
        with pytest.raises(TransformationError):
            made("floor(data)", b'"%b"' % (b"x" * 9000))
        assert gc.isenabled()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_expression_ends_after_its_steps(name: str) -> None:
    """How long a step takes is measured (python -m benchmarks transformation); here, that nothing goes on for long.

    What is refused is refused before it is done, so that no more than MAX_STEPS were taken.
    """
    expression, data = HOSTILE[name]
    steps, ended = spent(expression, data)
    assert ended == "done" or "needs more than 20,000 steps" in ended or "has more than" in ended or "longer" in ended
    assert steps <= MAX_STEPS or ended != "done"


def test_nothing_is_done_that_was_not_paid_for_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no steps left, no loop over the payload begins: each is refused by its price."""
    for expression, data in HOSTILE.values():
        text = data.decode()
        value = json_text.payload_of(text)
        tree = compiled(parse(expression))
        budget = Budget(text, value, steps=200)
        with pytest.raises(TransformationError):
            json_text.bytes_of(tree.run({"data": value}, budget), budget)
