"""Filters by their vectors: each says what a filter is, and what it says of one event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.errors import SubscriptionError
from outbox.subscriptions.filters import (
    Answer,
    Filter,
    FilteredEvent,
    FilterSet,
    parse,
    read_filter,
    stored_filter,
)
from outbox.subscriptions.filters.values import canonical

CASES = Path(__file__).parents[1] / "cases" / "filter_vectors.json"
DOCUMENT = json.loads(CASES.read_text("utf-8"))
VECTORS = DOCUMENT["vectors"]


def filter_of(vector: dict[str, Any]) -> Filter:
    given = read_filter(vector["filter_text"]) if "filter_text" in vector else vector["filter"]
    return parse(given, over="event" if "event" in vector else "payload")


def event_of(vector: dict[str, Any]) -> FilteredEvent:
    event = vector.get("event", {"type": "a.b", "payload": vector.get("payload")})
    payload = vector.get("payload_text") or json.dumps(event["payload"])
    if made := vector.get("payload_make"):
        payload = made["prefix"] + made["repeat"] * made["times"] + made["suffix"]
    return FilteredEvent(event["type"], payload, key=event.get("key"), metadata=event.get("metadata"))


@pytest.mark.case("B30")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_vector(vector: dict[str, Any]) -> None:
    if vector["expect"] == "invalid":
        with pytest.raises(SubscriptionError, match=r"^filter"):
            filter_of(vector)
        return
    compiled, event = filter_of(vector), event_of(vector)
    assert compiled.answer(event) == vector["expect"]
    explained = compiled.explain(event)
    assert explained.answer == vector["expect"]
    assert (explained.failure is None) == (explained.answer is Answer.MATCH)
    by_look_up = {name: one.answer(event) for name, one in FilterSet({b"it": compiled}).candidates(event)}
    assert by_look_up.get(b"it", Answer.NO_MATCH) == vector["expect"]


def refused(given: Any, **more: Any) -> str:
    with pytest.raises(SubscriptionError) as error:
        parse(given, **more)
    return str(error.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"payload": {"a": {"$startswith": "x"}}},
            "filter.payload.a.$startswith: is no operator; did you mean $startsWith?",
        ),
        ({"paylaod": {"a": 1}}, "filter.paylaod: is no field of an event; did you mean payload?"),
        ({"$or": [{"type": "a"}, {"typ": "b"}]}, "filter.$or[1].typ: is no field of an event; did you mean type?"),
        ({"payload": {"a b": {"$gt": True}}}, "filter.payload['a b'].$gt: True has no order; give a number or a text"),
        ({"payload": {"a": {"$in": "x"}}}, "filter.payload.a.$in: 'x' is not a list; give $in a list of 1 to 100"),
        ({"payload": {"a": {"$in": [1, [2]]}}}, "filter.payload.a.$in[1]: a list is not a single value"),
        ({"payload": {}}, "filter.payload: {} says nothing; give {'$exists': true}"),
        ({"payload": {"a": float("nan")}}, "filter.payload.a: NaN is not a number in JSON"),
        ({"payload": {"a": {1, 2}}}, "filter.payload.a: a set has no JSON form"),
        ({"payload": {1: 2}}, "filter.payload: a key is 1; JSON has only text as keys"),
        ({"payload": {"a": 10**5000}}, "filter.payload.a: a number of 16610 bits has too many digits"),
        ({"payload": {"a": "x" * 17_000}}, "filter: is 17020 bytes as JSON, at most 16384 are allowed"),
        ("{}", "filter: '{}' is not an object"),
        ({"payload": {"a": {"$regex": "x"}}}, "filter.payload.a.$regex: is no operator; there are no regular"),
        (
            {"payload": {"a": {"$like": "x"}}},
            "filter.payload.a.$like: is no operator; operators are $eq, $ne, $gt, $gte",
        ),
    ],
)
def test_a_refusal_names_the_path_the_value_and_the_mend(given: Any, told: str) -> None:
    assert refused(given).startswith(told)


def test_a_filter_that_contains_itself_is_refused() -> None:
    given: dict[str, Any] = {}
    given["payload"] = given
    assert "more than 16 objects and lists within each other" in refused(given)


def test_the_text_of_a_filter_is_one_whatever_the_order_and_the_types() -> None:
    one = parse({"payload": {"b": 0.1, "a": (1, None)}, "type": "x"})
    other = parse(read_filter('{"type": "x", "payload": {"a": [1, null], "b": 0.1}}'))
    assert one.text == other.text == '{"payload":{"a":[1,null],"b":0.1},"type":"x"}'
    assert parse(read_filter(one.text)).text == one.text


def test_a_filter_with_the_same_key_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        read_filter('{"payload": {"a": 1}, "payload": {"b": 2}}')


def objects(count: int, filled: str = '{"b":0}') -> FilteredEvent:
    return FilteredEvent("a.b", '{"items":[' + ",".join([filled] * count) + "]}")


def test_ninety_alternatives_on_a_long_list_of_objects_are_given_up_within_the_budget() -> None:
    filter_ = parse({"payload": {"items": {"$or": [{"a": number} for number in range(60)]}}})
    event = objects(20_000)
    before = event.work.left
    assert filter_.answer(event) is Answer.OVER_BUDGET
    assert before - event.work.left <= event.steps + 20_000
    assert filter_.explain(event).answer is Answer.OVER_BUDGET
    assert filter_.answer(objects(20)) is Answer.NO_MATCH


def test_one_honest_question_of_each_object_is_always_within_the_budget() -> None:
    fields = {f"f{number}": number for number in range(30)}
    filled = json.dumps(fields, separators=(",", ":"))
    filter_ = parse({"payload": {"items": fields | {"f29": 30}}})
    assert filter_.answer(objects(3000, filled)) is Answer.NO_MATCH


def test_greedy_filters_leave_each_other_one_the_least_budget() -> None:
    greedy = parse({"payload": {"items": {"$or": [{"a": number} for number in range(60)]}}})
    modest = parse({"payload": {"total": {"$gte": 1}}})
    event = FilteredEvent("a.b", '{"total":1,"items":[' + ",".join(['{"b":0}'] * 20_000) + "]}")
    for _ in range(40):
        assert greedy.answer(event) is Answer.OVER_BUDGET
    assert event.steps == 10_000
    assert modest.answer(event) is Answer.MATCH


def test_a_payload_that_nothing_asks_for_is_not_parsed() -> None:
    event = FilteredEvent("a.b", "{", key="k")
    assert parse({"type": "a.b", "key": "k"}).answer(event) is Answer.MATCH
    assert not event.parsed
    assert parse({"payload": {"a": 1}}).answer(event) is Answer.UNREADABLE
    assert parse({"$or": [{"type": "a.b"}, {"payload": {"a": 1}}]}).answer(event) is Answer.MATCH


def test_a_payload_that_is_nested_more_deeply_than_can_be_parsed_is_given_up() -> None:
    depth = 200_000
    event = FilteredEvent("a.b", '{"a":' + "[" * depth + "]" * depth + ',"b":1}')
    assert parse({"payload": {"b": 1}}).answer(event) is Answer.UNREADABLE


def test_no_filter_takes_a_payload_that_memory_did_not_suffice_for_as_null(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: str) -> Any:
        raise MemoryError

    monkeypatch.setattr("outbox.subscriptions.filters.event.read_payload", read)
    event, both = FilteredEvent("a.b", "[]"), [parse({"payload": {"$not": {"a": n}}}) for n in (1, 2)]
    assert [one.answer(event) for one in both] == [Answer.UNREADABLE] * 2


@pytest.mark.parametrize("number", ["1e99999999999999999999", "-1e-99999999999999999999", "9" * 100_000])
def test_no_number_of_a_payload_raises(number: str) -> None:
    event = FilteredEvent("a.b", f'{{"n":{number},"ok":1}}')
    for condition in ({"$gt": 1}, {"$lt": 1}, {"$ne": 1}, {"$in": [1, 2]}, {"$eq": {"a": 1}}, {"$contains": 1}, 1):
        parse({"payload": {"n": condition}}).answer(event)
    assert parse({"payload": {"ok": 1}}).answer(event) is Answer.MATCH
    assert "n" in str(parse({"payload": {"n": "x"}}).explain(event).failure)


def test_what_is_stored_by_other_means_and_is_no_filter_says_so() -> None:
    for text in ('{"payload": {"a": {"$like": 1}}}', "{", '{"a": 1, "a": 2}', "[" * 100_000):
        filter_ = stored_filter(text)
        said = filter_.explain(FilteredEvent("a.b", "1"))
        assert (said.answer, bool(said.problem)) == (Answer.REFUSED, True)
        assert dict(FilterSet({b"it": filter_}).candidates(FilteredEvent("a.b", "1"))) == {b"it": filter_}


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.decimals(-3, 3, places=1), st.sampled_from(["", "a", "b", "1"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)
LEAVES = st.one_of(
    SCALARS,
    st.builds(
        lambda name, bound: {name: bound}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.sampled_from([0, "a"])
    ),
    st.builds(
        lambda name, some: {name: some}, st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, min_size=1, max_size=3)
    ),
    st.builds(lambda name, one: {name: one}, st.sampled_from(["$eq", "$ne"]), VALUES),
    st.builds(lambda wanted: {"$exists": wanted}, st.booleans()),
    st.builds(lambda part: {"$contains": part}, SCALARS),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
        st.lists(inner, min_size=1, max_size=2),
        st.builds(
            lambda name, some: {name: some}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3)
        ),
        st.builds(lambda one: {"$not": one}, inner),
    ),
    max_leaves=8,
)


@given(condition=CONDITIONS, payload=VALUES)
@settings(max_examples=400)
def test_not_is_the_exact_opposite_and_look_ups_say_what_trying_says(condition: Any, payload: Any) -> None:
    event = FilteredEvent("a.b", canonical(payload))
    try:
        filter_, opposite = parse({"payload": condition}), parse({"payload": {"$not": condition}})
    except SubscriptionError as error:
        assert "within each other" in str(error) or "more than 200" in str(error)
        return
    answer = filter_.answer(event)
    assert answer in (Answer.MATCH, Answer.NO_MATCH)
    assert {answer, opposite.answer(event)} == {Answer.MATCH, Answer.NO_MATCH}
    assert parse({"$not": {"payload": condition}}).answer(event) == opposite.answer(event)
    assert filter_.explain(event).answer == answer
    found = {name: one.answer(event) for name, one in FilterSet({b"it": filter_}).candidates(event)}
    assert found.get(b"it", Answer.NO_MATCH) == answer


def test_a_thousand_filters_on_a_customer_are_looked_up_not_tried() -> None:
    filters = {f"{n}".encode(): parse({"payload": {"customer": {"id": n}}, "type": "a.b"}) for n in range(1000)}
    filters[b"range"] = parse({"payload": {"customer": {"id": {"$gte": 5}}}})
    many = FilterSet(filters)
    event = FilteredEvent("a.b", '{"customer": {"id": 7.0}}')
    assert {name for name, _ in many.candidates(event)} >= {b"7", b"range"}
    assert len(list(many.candidates(event))) == 2
    listed = FilteredEvent("a.b", '{"customer": [{"id": 7}, {"id": 8}]}')
    assert {name for name, one in many.candidates(listed) if one.answer(listed) is Answer.MATCH} == {
        b"7",
        b"8",
        b"range",
    }
