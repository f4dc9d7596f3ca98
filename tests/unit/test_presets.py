"""The formats of known receivers: every message keeps their published rules, every answer means what they say."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox import RawJSON
from outbox.formats import shown_url
from relay.message.formats import FormatError, Formatter
from relay.message.formats.json_text import parse
from relay.message.formats.receivers import ANSWERS
from relay.model.decide import GONE, decide
from relay.model.event import EventParts
from relay.model.outcome import Outcome, OutcomeKind, Scope
from relay.model.receiver_rules import read_answer
from relay.model.verdict import Disable, Hold, VerdictKind
from tests.support.presets import PRESETS, broken_rules, filled

pytestmark = pytest.mark.case("B15")
OURS = tuple(ANSWERS)
KEY = "0123456789abcdef0123456789abcdef"
SECRETS = {"pagerduty": KEY}
EXAMPLES = [pytest.param(name, one, id=f"{name}: {one['name']}") for name in OURS for one in PRESETS[name]["examples"]]
ROWS = [
    pytest.param(name, row, id=f"{name} {row['status'][0]} {str(row['body'])[:24]}")
    for name in OURS
    for row in PRESETS[name]["answers"]
]
each_preset = pytest.mark.parametrize("name", OURS)
CHATS = ("slack", "discord", "teams")


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_the_judge_knows_what_its_receiver_refuses(name: str, example: dict[str, Any]) -> None:
    broken = broken_rules(name, filled(example))
    if example["valid"]:
        assert not broken
    else:
        assert example["breaks"] in broken


def make(name: str, payload: Any, told: dict[str, Any] | None = None, key: str | None = "order-7") -> Any:
    text = payload.text if isinstance(payload, RawJSON) else json.dumps(payload)
    event = EventParts(b"evt_01kb0c7y6rf1v8m5q2w3e4r5t6", b"order.paid", "", key, 1_234_567, text.encode())
    made = Formatter(name, told or {}, SECRETS.get(name, "")).body_of(event)
    return json.loads(made.content)


LONG = 'Ü€😀&<>`*\\"\n' * 3000
PAYLOADS = [
    None, [], {}, "", 0, RawJSON('"\\ud800"'), "x" * 100_000, LONG, {"a": LONG},
    {"a" * 5000: LONG, "b": {"c": [LONG, 1]}},
    {str(number): "&" * 50 for number in range(2000)}, [[["deep"]]], {"lines": [{"sku": "a", "n": 1}, {"sku": "b"}]},
]  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: str(payload)[:12])
@each_preset
def test_a_message_keeps_the_receivers_rules_whatever_the_data(name: str, payload: Any) -> None:
    assert broken_rules(name, make(name, payload)) == set()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@each_preset
@settings(max_examples=60)
@given(payload=json_values)
def test_any_json_becomes_a_message(name: str, payload: Any) -> None:
    try:
        assert broken_rules(name, make(name, payload)) == set()
    except FormatError as error:
        assert name == "zapier"
        assert "two members are one when flattened" in str(error)


@pytest.mark.parametrize("name", CHATS)
@given(value=st.text(max_size=3000))
@settings(max_examples=60)
def test_a_text_of_its_own_keeps_the_rules_too(name: str, value: str) -> None:
    told = {"text": "Order {data.order} of {key} was paid at {time}: {data.nothing} {data}"}
    message = make(name, {"order": value}, told)
    assert broken_rules(name, message) == set()


ATTACK = (
    "<!channel> <@U1> @everyone <https://evil.example|pay here> [pay](https://evil.example) https://evil.example ```"
)


@pytest.mark.parametrize("told", [None, {"text": "Paid: {data.note}"}], ids=["default", "own text"])
def test_slack_shows_data_as_text_and_pings_nobody(told: dict[str, Any] | None) -> None:
    message = make("slack", {"note": ATTACK}, told)
    assert "<" not in message["text"]
    assert "&lt;!channel&gt;" in message["text"]
    texts = [block["text"] for block in message["blocks"] if "text" in block]
    assert texts
    for text in texts:
        assert text["type"] == "plain_text" or (text["verbatim"] and "<" not in text["text"])
    assert message["unfurl_links"] is False


@pytest.mark.parametrize("told", [None, {"text": "Paid: {data.note}"}], ids=["default", "own text"])
def test_discord_pings_nobody_and_no_data_act_as_markup(told: dict[str, Any] | None) -> None:
    message = make("discord", {"note": ATTACK}, told)
    assert message["allowed_mentions"] == {"parse": []}
    if told is None:
        block = message["embeds"][0]["description"]
        assert block.count("```") == 2, "data cannot end the code block"
        return
    unescaped = re.sub(r"\\.", "", message["content"].removeprefix("Paid: "))
    assert not re.search(r"[<@`*\[\](:]", unescaped)


def test_teams_shows_data_where_no_markdown_acts() -> None:
    for told in (None, {"text": "Paid: {data.note}"}):
        card = make("teams", {"note": ATTACK}, told)["attachments"][0]["content"]
        assert [block["type"] for block in card["body"] if ATTACK in json.dumps(block, ensure_ascii=False)] == [
            "RichTextBlock"
        ]
        assert "msteams" not in card


def test_a_long_text_is_cut_by_whole_characters_and_says_so() -> None:
    text = make("slack", {"note": "&" * 9000}, {"text": "{data.note}"})["blocks"][0]["text"]["text"]
    assert text.endswith(";…")
    assert 2990 <= len(text) <= 3000
    content = make("discord", {"note": "😀" * 3000}, {"text": "{data.note}"})["content"]
    assert content == "😀" * 999 + "…", "Discord may count in units of UTF-16"
    assert make("discord", {"note": "x" * 2000}, {"text": "{data.note}"})["content"] == "x" * 2000


def test_an_alert_is_about_the_events_key() -> None:
    trigger = make("pagerduty", {"n": 1})
    resolve = make("pagerduty", {"n": 1}, {"action": "resolve"})
    assert trigger["dedup_key"] == resolve["dedup_key"] == "order-7"
    assert "payload" not in resolve
    assert trigger["payload"]["custom_details"]["data"] == {"n": 1}
    assert make("pagerduty", 1, key=None)["dedup_key"] == "evt_01kb0c7y6rf1v8m5q2w3e4r5t6"
    assert len(make("pagerduty", 1, key="k" * 1024)["dedup_key"]) == 64
    with pytest.raises(FormatError, match=r"^key: is empty, so nothing tells which alert to resolve"):
        make("pagerduty", 1, {"action": "resolve"}, key=None)


def test_zapier_gets_one_flat_object_with_the_numbers_as_recorded() -> None:
    event = EventParts(
        b"evt_1", b"t", "", None, 0, b'{"a":{"b":10.50},"tags":["x",1],"lines":[{"sku":"a"},{"n":1E-7}]}'
    )
    content = Formatter("zapier", {}).body_of(event).content.decode()
    assert '"data__a__b":10.50' in content
    assert '"data__lines__sku":["a",null],"data__lines__n":[null,1E-7]' in content
    with pytest.raises(FormatError, match="two members are one when flattened"):
        make("zapier", {"a": {"b": 1}, "a__b": 2})


def test_zapier_refuses_what_grows_beyond_its_limit_before_it_is_made() -> None:
    with pytest.raises(FormatError, match=r"over 10485760 bytes when flattened"):
        make("zapier", {"k" * 100_000: {str(number): 1 for number in range(5000)}})


def test_data_nested_too_deep_are_a_dead_letter_and_no_crash() -> None:
    for name in OURS:
        try:
            make(name, RawJSON("[" * 50_000 + "]" * 50_000))
        except FormatError as error:
            assert "nested too deep" in str(error)
        except RecursionError:  # the judge's own json, of a body that holds the data as they are
            assert name in ("n8n", "pagerduty")
    assert parse(b"1.50") == "1.50"


# ── what answers mean ──


def answers_of(row: dict[str, Any]) -> list[Outcome]:
    """The answers that a row describes."""
    found = []
    for status in row["status"]:
        codes = {"2xx": [200, 201], "5xx": [500, 502], "network": [None]}.get(status, [status])
        for code in codes:
            if row.get("when") == "not 200" and code == 200:
                continue
            found += [answer(row, code, body) for body in bodies_of(row["body"])]
    return found


def bodies_of(body: Any) -> list[bytes]:
    if isinstance(body, dict):
        codes = body.get("code")
        return (
            [json.dumps(body | {"code": code}).encode() for code in codes]
            if isinstance(codes, list)
            else [json.dumps(body).encode()]
        )
    return [one.encode() for one in (body if isinstance(body, list) else [body or ""])]


def answer(row: dict[str, Any], status: int | None, body: bytes) -> Outcome:
    if status is None:
        return Outcome(OutcomeKind.TIMEOUT, None, 1, "no answer in time")
    kind = {2: "delivered", 4: "http_4xx", 5: "http_5xx"}[status // 100]
    lines = dict(row.get("headers", {}))
    if "Remaining" in row.get("when", ""):
        lines |= {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "1.2"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    asked = float(lines["retry-after"]) if "retry-after" in lines else None
    return Outcome(OutcomeKind(kind), status, 1, headers=head, excerpt=body, retry_after_seconds=asked)


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_an_answer_means_what_its_receiver_says(name: str, row: dict[str, Any]) -> None:
    """An alert is the log's line and the dead letter; "the schedule's next delay" is what decide() does by itself."""
    outcomes = answers_of(row)
    assert outcomes
    for outcome in outcomes:
        read = read_answer(outcome, ANSWERS[name])
        verdict = decide(read, 2, (5, 300, 1800), 0.0)
        kinds = {"delivered": VerdictKind.DELIVERED, "retry": VerdictKind.RETRY, "dead": VerdictKind.DEAD}
        assert verdict.kind is kinds[row["delivery"]], outcome
        changes = {"disable": Disable, "none": type(None), "alert": type(None)}
        if row["endpoint"] == "hold":
            assert isinstance(verdict.endpoint, Hold) or "schedule" in row["hold"].get("else", "")
            assert (read.scope is Scope.RECEIVER) == row["hold"].get("scope", "").startswith("every ")
        else:
            assert isinstance(verdict.endpoint, changes[row["endpoint"]]), outcome
        if row["delivery"] == "dead":
            assert read.error


def test_discord_holds_for_the_larger_time_rounded_up() -> None:
    body = b'{"message":"slow","retry_after":64.57,"global":false}'
    for headers, asked, seconds in (("", None, 65.0), ("retry-after: 70\r\n", 70.0, 70.0), ("", 1.0, 65.0)):
        outcome = Outcome(OutcomeKind.HTTP_4XX, 429, 1, headers=headers, excerpt=body, retry_after_seconds=asked)
        assert read_answer(outcome, ANSWERS["discord"]).retry_after_seconds == seconds
    banned = Outcome(OutcomeKind.HTTP_4XX, 429, 1, headers="", excerpt=b"<html>error 1015</html>")
    assert read_answer(banned, ANSWERS["discord"]).retry_after_seconds == 600.0


@pytest.mark.parametrize(
    ("headers", "body", "scope"),
    [
        ("", b'{"retry_after":2.5,"global": true}', Scope.RECEIVER),
        ("X-RateLimit-Global: true\r\n", b'{"retry_after":2.5,"global":false}', Scope.RECEIVER),
        ("X-RateLimit-Scope: user\r\n", b'{"retry_after":2.5,"global":false}', Scope.ENDPOINT),
    ],
)
def test_discords_global_rate_holds_every_webhook(headers: str, body: bytes, scope: Scope) -> None:
    read = read_answer(Outcome(OutcomeKind.HTTP_4XX, 429, 1, headers=headers, excerpt=body), ANSWERS["discord"])
    assert (read.scope, read.retry_after_seconds) == (scope, 3.0)


def test_a_success_that_says_wait_is_delivered_and_holds() -> None:
    head = "HTTP/1.1 204 No Content\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset-After: 1.2\r\n"
    read = read_answer(Outcome(OutcomeKind.DELIVERED, 204, 1, headers=head), ANSWERS["discord"])
    verdict = decide(read, 1, (5,), 0.0)
    assert (verdict.kind, verdict.endpoint) == (VerdictKind.DELIVERED, Hold(2.0))


@pytest.mark.parametrize(
    ("name", "body", "dead"),
    [
        ("slack", b'{"ok":false,"error":"not_in_channel"}', False),
        (
            "teams",
            b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 503",
            False,
        ),
        (
            "teams",
            b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 413",
            True,
        ),
        (
            "teams",
            b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429",
            False,
        ),
    ],
)
def test_a_200_whose_body_says_error_is_not_delivered(name: str, body: bytes, dead: bool) -> None:
    read = read_answer(Outcome(OutcomeKind.DELIVERED, 200, 1, excerpt=body, headers=""), ANSWERS[name])
    assert read.kind == OutcomeKind.NOT_TAKEN
    verdict = decide(read, 1, (5,), 0.0)
    assert verdict.kind is (VerdictKind.DEAD if dead else VerdictKind.RETRY)
    assert isinstance(verdict.endpoint, Hold) == body.endswith(b"429")


def test_an_endpoint_is_disabled_when_the_answer_comes_again() -> None:
    gone = Outcome(OutcomeKind.HTTP_4XX, 404, 1, excerpt=b"no_service", headers="")
    read = read_answer(gone, ANSWERS["slack"])
    assert decide(read, 1, (5, 300), 0.0).kind is VerdictKind.RETRY
    assert decide(read, 1, (5, 300), 0.0).endpoint is None
    assert isinstance(decide(read, 2, (5, 300), 0.0).endpoint, Disable)
    assert isinstance(decide(read, 1, (), 0.0).endpoint, Disable), "with one attempt there is no again"
    anywhere = Outcome(OutcomeKind.HTTP_4XX, 410, 1, excerpt=b"", headers="")
    assert decide(read_answer(anywhere, ANSWERS["n8n"]), 1, (5,), 0.0).endpoint == GONE


def test_numbers_in_an_answer_cannot_do_harm() -> None:
    for text in ("9" * 400, "1e999", "-5", "NaN"):
        body = f'{{"retry_after":{text}}}'.encode()
        outcome = Outcome(OutcomeKind.HTTP_4XX, 429, 1, headers="", excerpt=body)
        decide(read_answer(outcome, ANSWERS["discord"]), 1, (5,), 0.0)


URLS = [
    ("slack", "https://hooks.slack.com/services/T0/B0/tokentokentokentoken", "https://hooks.slack.com/services/***"),
    ("discord", "https://discord.com/api/webhooks/12/tok-en?wait=true", "https://discord.com/api/webhooks/12/***?***"),
    ("teams", "https://prod-1.westeurope.logic.azure.com:443/workflows/a/paths/invoke?sp=%2Ftriggers&sig=s3",
     "https://prod-1.westeurope.logic.azure.com:443/workflows/a/paths/invoke?***"),
    ("zapier", "https://hooks.zapier.com/hooks/catch/1/abc/", "https://hooks.zapier.com/hooks/catch/***"),
    ("n8n", "https://n8n.acme.example/webhook/abc?x=1", "https://n8n.acme.example/webhook/***?***"),
    ("n8n", "https://n8n.acme.example/abc", "https://n8n.acme.example/***"),
    ("standard", "https://hooks.slack.com/services/T0/B0/token", "https://hooks.slack.com/services/***"),
    ("standard", "https://example.com/webhook/abc?x=1", "https://example.com/webhook/abc?x=1"),
    ("standard", "https://example.com/orders/2026/order-created-v2?source=relay&x", None),
    ("standard", "https://[2001:db8::1]:8443/tenants/4711/hooks", None),
    ("standard", "https://user:pw@example.com/a", "https://***@example.com/a"),
    ("standard", "https://example.com/a?x=1&token=abc;apiKey=d&e=", "https://example.com/a?x=1&token=***;apiKey=***&e="),
    ("standard", "https://example.com/a?9f86d081884c7d659a2f", "https://example.com/a?***"),
    ("standard", "https://example.com/a#token", "https://example.com/a#***"),
    ("standard", "https://example.com/token/abc/in", "https://example.com/token/***/in"),
    ("standard", "https://webhook.example/0b3a1c9e-7f54-4d0e-9a44-2f1f7a3c1b22/in", "https://webhook.example/***/in"),
    ("standard", "https://api.telegram.org/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/send",
     "https://api.telegram.org/***/send"),
    ("standard", "https://example.com/in/Ab3-xY9_kLm2-Qr7_tUv1", "https://example.com/in/***"),
]  # fmt: skip


@pytest.mark.field("F27")
@pytest.mark.parametrize(("form", "url", "shown"), URLS)
def test_a_url_that_is_a_credential_is_shown_without_it(form: str, url: str, shown: str) -> None:
    assert shown_url(url, form) == (shown or url)
    assert shown_url(shown or url, form) == (shown or url), "it may be shown twice"


def test_what_an_answer_repeats_of_the_url_is_known_as_a_secret() -> None:
    formatter = Formatter("slack", {}, url="https://hooks.slack.com/services/T0/B0/tokentokentokentoken")
    assert b"tokentokentokentoken" in formatter.secrets
    assert b"T0/B0/tokentokentokentoken" in formatter.secrets
    assert KEY.encode() in Formatter("pagerduty", {}, KEY).secrets
    assert KEY not in repr(Formatter("pagerduty", {}, KEY))
