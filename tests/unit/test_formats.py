"""Every format by cases/format_vectors.json, where the bodies, their refusals and their readers are written down."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import formats
from outbox.errors import SubscriptionError
from outbox.signing import schemes
from relay.message.body import body_of
from relay.message.formats import FORMATS, FormatError, Formatter, batch_of
from relay.model.event import EventParts
from tests.support.cloudevents import NoEventError, read

pytestmark = [pytest.mark.field("F54"), pytest.mark.case("B13"), pytest.mark.case("B14")]
CASES = json.loads((Path(__file__).parents[1] / "cases" / "format_vectors.json").read_text(encoding="utf-8"))
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
SYSTEMS = {"S1": "notely", "S2": "fulfil", "S3": "soundhash", "S4": "leads"}
SETTINGS = ("source", "subject", "datacontenttype", "dataschema", "extensions")


def by_id(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case["id"])


def make_event(of: dict[str, Any]) -> EventParts:
    """The event as the relay holds it; one without data has no payload, which no stored event is."""
    payload = of.get("data_text", "")
    if "data" in of:
        payload = json.dumps(of["data"], ensure_ascii=False, separators=(",", ":"))
    for name in ("data_string", "data_base64"):
        payload = json.dumps(of[name], ensure_ascii=False) if name in of else payload
    at = datetime.fromisoformat(of.get("time", "2026-11-26T10:15:30Z"))
    moment = (at - EPOCH) // timedelta(microseconds=1)
    return EventParts(of["id"].encode(), of["type"].encode(), of["tenant"], of["key"] or None, moment, payload.encode())


def settings_of(of: dict[str, Any], names: dict[str, str] | None = None) -> dict[str, Any]:
    found = {name: of[name] for name in SETTINGS if name in of} | (names or {})
    return found | ({"data_encoding": "base64"} if "data_base64" in of else {})


def headers_of(formatter: Formatter, lines: bytes) -> dict[str, str]:
    pairs = (line.split(": ", 1) for line in lines.decode("ascii").split("\r\n")[:-1])
    headers = {name.lower(): value for name, value in pairs} | {"content-type": formatter.content_type}
    assert all(re.fullmatch("[!-~]+", value) for name, value in headers.items() if name.startswith("ce-"))
    return headers


CLOUDEVENTS = CASES["cloudevents"]
SINGLE = [case for case in CLOUDEVENTS["vectors"] if case["mode"] != "batched"]
BATCHED = [case for case in CLOUDEVENTS["vectors"] if case["mode"] == "batched"]
FORMAT_OF = {"structured": "cloudevents", "binary": "cloudevents-binary"}


def expect_body(case: dict[str, Any], body: bytes) -> None:
    if "expect_body_text" in case:
        assert body.decode() == case["expect_body_text"]
    elif "expect_body_base64" in case:
        assert body == base64.b64decode(case["expect_body_base64"])
    else:
        text = case.get("expect_body_json_text") or json.dumps(case["expect_body"])
        found, expected = (json.loads(one, parse_float=Decimal, parse_int=Decimal) for one in (body, text))
        if case["mode"] == "structured":
            instants = [datetime.fromisoformat(one.pop("time", "2026-11-26T10:15:30Z")) for one in (found, expected)]
            assert instants[0] == instants[1]
        assert found == expected
        assert {name: type(value) for name, value in found.items()} == {
            name: type(value) for name, value in expected.items()
        }
    assert all(part.encode() in body for part in case.get("body_contains", ()))


@by_id(SINGLE)
def test_a_cloudevent_is_what_the_specification_says(case: dict[str, Any]) -> None:
    formatter = Formatter(FORMAT_OF[case["mode"]], settings_of(case["event"], case.get("map")))
    made = formatter.body_of(make_event(case["event"]))
    headers = headers_of(formatter, made.lines)
    for name, value in case["expect_headers"].items():
        found = headers[name]
        assert datetime.fromisoformat(found) == datetime.fromisoformat(value) if name == "ce-time" else found == value
    assert not headers.keys() & set(case.get("absent_headers", ()))
    expect_body(case, made.content)
    if case["mode"] == "structured":
        members = json.loads(made.content)
        assert not members.keys() & {*case["absent_members"], *case.get("absent_members_more", ())}
    understood = read(headers, made.content)
    assert (understood["id"], understood["type"]) == (case["event"]["id"], case["event"]["type"])
    assert understood.get("subject") == case["event"].get("subject")


@by_id(BATCHED)
def test_a_batch_is_an_array_of_structured_events(case: dict[str, Any]) -> None:
    formatter = Formatter("cloudevents", settings_of(case["events"][0]))
    batch = batch_of([make_event(one) for one in case["events"]], formatter)
    assert batch.content_type == case["expect_headers"]["content-type"]
    found = json.loads(batch.content)
    for one in found:
        del one["time"]  # the vectors' events have none
    assert found == case["expect_body"]
    assert len(read({"content-type": batch.content_type}, batch.content)) == len(case["events"])


def test_a_batch_of_none_is_an_empty_array_and_every_format_says_whether_it_has_batches() -> None:
    assert batch_of([]).content == b"[]"
    two = [make_event(one) for one in BATCHED[0]["events"]]
    assert [one["data"] for one in json.loads(batch_of(two).content)] == [{"n": 1}, {"n": 2}]
    assert json.loads(batch_of(two, Formatter("raw", {})).content) == [{"n": 1}, {"n": 2}]
    for name in ("slack", "zapier", "n8n", "cloudevents-binary"):
        with pytest.raises(SubscriptionError, match=f"^format: {name} takes one event at a time"):
            batch_of(two, Formatter(name, {}))


@by_id(CLOUDEVENTS["refused"])
def test_what_cloudevents_forbids_is_refused_and_nothing_else_takes_its_place(case: dict[str, Any]) -> None:
    form, of = formats.named(FORMAT_OF[case["mode"]]), case["event"]
    if case["field"] == "subject":  # it comes with an event: as its key
        formatter = Formatter(form.name, {"source": of["source"], "key_as": "subject"})
        with pytest.raises(FormatError, match=r"^key: .*U\+000A"):
            formatter.body_of(make_event({**of, "key": of["subject"]}))
    given = settings_of(of) | ({"time": of["time"]} if "time" in of else {})
    with pytest.raises(SubscriptionError) as refused:
        formats.check_settings(form, given)
    assert case["field"] in str(refused.value)
    assert str(refused.value).startswith("format_settings")
    with pytest.raises(SubscriptionError):  # a row may be written by hand
        Formatter(form.name, given)


@by_id(CLOUDEVENTS["decode"])
def test_the_reader_that_judges_our_events_reads_as_the_specification_says(case: dict[str, Any]) -> None:
    if case.get("refused"):
        with pytest.raises(NoEventError):
            read(case["headers"], case["body"].encode())
        return
    found = read(case["headers"], case["body"].encode())
    expected = case["expect_attributes"]
    pairs = zip(found, expected, strict=True) if isinstance(expected, list) else [(found, expected)]
    assert all(attributes.items() <= one.items() for one, attributes in pairs)


@by_id(CASES["systems"]["vectors"])
def test_an_old_system_gets_its_body_byte_for_byte(case: dict[str, Any]) -> None:
    name, event = SYSTEMS[case["system"]], make_event(case["event"])
    made = Formatter(name, {}).body_of(event)
    assert made.content.decode() == case["body_text"]
    if isinstance(case["expect_members"], dict):
        assert case["expect_members"].items() <= json.loads(made.content).items()


@by_id(CASES["systems"]["vectors"])
def test_an_old_system_verifies_its_signature(case: dict[str, Any]) -> None:
    """Node's receivers of S1 have a scheme of their own. A retry has another timestamp and the same body."""
    name, event = SYSTEMS[case["system"]], make_event(case["event"])
    made, stamp = Formatter(name, {}).body_of(event), str(case["timestamp"]).encode()
    pairs = [(name, "signature"), (name, "signature_python"), ("notely-node", "signature_node")]
    for scheme, member in [pair for pair in pairs if case.get(pair[1])]:
        signer = schemes.signer(scheme, [case["secret"]])
        lines = signer.lines(event.id, event.type, stamp, made.content).decode().lower()
        header = case["signature_header"] if not case["signature_header"].startswith("open") else "x-webhook-signature"
        assert f"{header}: {case[member]}\r\n" in lines
        if "x-webhook-timestamp" in case["expect_headers"]:
            assert f"x-webhook-timestamp: {case['timestamp']}\r\n" in lines
    if case["secret"] is None:
        assert b"signature" not in schemes.signer("none", []).lines(event.id, event.type, stamp, made.content)
    assert formats.named(name).user_agent == case["expect_headers"].get("user-agent")
    if "x-webhook-event" in case["expect_headers"]:
        assert made.lines == f"X-Webhook-Event: {case['expect_headers']['x-webhook-event']}\r\n".encode()


def event(payload: str = '{"n": 1.50}', key: str | None = None, tenant: str = "", moment: int = 123_456) -> EventParts:
    return EventParts(b"evt_1", b"order.paid", tenant, key, moment, payload.encode())


def test_every_declared_format_is_made_somewhere_and_has_its_line() -> None:
    assert {"standard", *FORMATS} == set(formats.FORMATS)
    for form in formats.FORMATS.values():
        assert form.summary
        assert form.content_type.startswith("application/")


def test_raw_is_the_exact_text_and_thin_has_id_and_type_only() -> None:
    assert Formatter("raw", {}).body_of(event()).content == b'{"n": 1.50}'
    assert Formatter("thin", {}).body_of(event()).content == b'{"id":"evt_1","type":"order.paid"}'


@pytest.mark.parametrize(
    "name", ["raw", "cloudevents", "cloudevents-binary", "notely", "fulfil", "soundhash", "leads", "n8n"]
)
def test_the_stored_text_is_not_parsed(name: str) -> None:
    text = '{"b":1E-7,  "a":"\\u0000\\/", "b":10.50}'
    assert text.encode() in Formatter(name, {}).body_of(event(text)).content
    assert text.encode() in body_of(event(text))


def test_a_fraction_of_a_second_stands_where_there_is_one() -> None:
    half = Formatter("leads", {}).body_of(event(moment=500_000)).content
    assert json.loads(half)["timestamp"] == "2000-01-01T00:00:00.500000Z"
    assert json.loads(Formatter("leads", {}).body_of(event(moment=0)).content)["timestamp"] == "2000-01-01T00:00:00Z"


def test_a_body_is_made_once_for_a_format_and_its_settings() -> None:
    one = event()
    first, same = (Formatter("cloudevents", {"source": "/a", "subject": "s"}) for _ in range(2))
    other = Formatter("cloudevents", {"source": "/b"})
    assert first.body_of(one) is same.body_of(one)
    assert first.body_of(one) != other.body_of(one)
    assert one.standard is None
    assert "n" not in repr(first.body_of(one)).replace("bytes", "").replace("content", "")


@given(st.text(min_size=1, max_size=40), st.text(max_size=20))
def test_any_key_and_tenant_become_a_valid_event_or_a_dead_letter(key: str, tenant: str) -> None:
    of = event(key=key, tenant=tenant)
    for name in ("cloudevents", "cloudevents-binary"):
        formatter = Formatter(name, {"tenant_as": "tenant"})
        try:
            made = formatter.body_of(of)
        except FormatError as error:
            assert str(error).startswith(("key: ", "tenant: "))
            continue
        understood = read(headers_of(formatter, made.lines), made.content)
        assert understood["partitionkey"] == key
        assert understood.get("tenant", "") == tenant


TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nvendora=t61rcWkgMzE, vendorb=00f067\nuser=7"


@pytest.mark.parametrize("name", ["cloudevents", "cloudevents-binary"])
def test_the_trace_in_which_the_event_was_recorded_is_an_attribute(name: str) -> None:
    of = event()
    of.trace = TRACE
    made = Formatter(name, {}).body_of(of)
    if name == "cloudevents-binary":
        assert b"\r\nce-tracestate: vendora=t61rcWkgMzE,%20vendorb=00f067\r\n" in made.lines
    understood = read(headers_of(Formatter(name, {}), made.lines), made.content)
    assert understood["traceparent"] == TRACE.split(b"\n")[0].decode()
    assert understood["tracestate"] == "vendora=t61rcWkgMzE, vendorb=00f067"
    assert "user" not in understood
    own = Formatter(name, {"extensions": {"traceparent": "mine"}}).body_of(of)
    assert read(headers_of(Formatter(name, {}), own.lines), own.content)["traceparent"] == "mine"
    of = event()
    of.trace = b"00-zz\r\nX-Injected: 1"
    malformed = Formatter(name, {}).body_of(of)
    assert "traceparent" not in read(headers_of(Formatter(name, {}), malformed.lines), malformed.content)


def test_data_that_are_no_text_where_the_type_needs_text_are_refused() -> None:
    for name in ("cloudevents", "cloudevents-binary"):
        xml = Formatter(name, {"datacontenttype": "application/xml"})
        with pytest.raises(FormatError, match=r"^data: is no text, as application/xml needs it"):
            xml.body_of(event('{"a":1}'))
        png = Formatter(name, {"datacontenttype": "image/png", "data_encoding": "base64"})
        with pytest.raises(FormatError, match=r"^data: is no base64"):
            png.body_of(event('"***"'))


SETTING_ERRORS = [
    ("cloudevents", {"sources": "/a"}, "'sources' is no setting of cloudevents; did you mean source?"),
    ("raw", {"source": "/a"}, "'source' is no setting of raw; it has none"),
    ("pagerduty", {"severity": "fatal"}, "severity: 'fatal' is not one of critical, error, warning, info"),
    ("slack", {"text": "Order {dat.order}"}, "text: '{dat.order}' is no part of an event; did you mean {data}?"),
    ("slack", {"text": "Order {"}, "text: has a brace"),
    ("slack", {"text": "  "}, "text: is empty"),
    ("discord", {"username": "My Discord bot"}, "username: 'My Discord bot' is no name that Discord takes"),
    ("cloudevents", {"subject": "s", "key_as": "subject"}, "subject: key_as sends the key there"),
    ("cloudevents", {"key_as": "k", "tenant_as": "k"}, "tenant_as: k takes the key already"),
    ("cloudevents", {"extensions": {"partitionkey": "a"}}, "extensions.partitionkey: key_as writes it"),
    ("cloudevents", {"data_encoding": "base64"}, "data_encoding: base64 is for data that is not JSON"),
    ("cloudevents", {"dataschema": "https://a/#b"}, "dataschema: 'https://a/#b' is no absolute URI"),
]


@pytest.mark.parametrize(("name", "settings", "said"), SETTING_ERRORS)
def test_a_wrong_setting_is_named_with_the_mend(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SubscriptionError) as refused:
        formats.check_settings(formats.named(name), settings)
    assert said in str(refused.value)


def test_a_wrong_format_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SubscriptionError, match=r"^format: 'cloudevent' is not known; did you mean cloudevents\?"):
        formats.named("cloudevent")
