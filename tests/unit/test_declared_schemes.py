"""Schemes of a user's own: what may be declared, what a signature then protects, and that others' code accepts it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import outbox
from outbox import SchemeDeclaration
from outbox.errors import SignatureError, SubscriptionError
from outbox.signing.schemes import ROWS, SCHEMES
from outbox.signing.schemes.declaration import declaration_of, is_scheme_name
from outbox.signing.verify import check_secret, new_secret
from outbox.subscriptions.headers import check_headers
from tests.support.own_schemes import only_here

ID, TYPE, AT, BODY = "evt_01k3v9t2", "order.placed", 1_700_000_000, '{"type":"order.placed","n":"Grüße"}'.encode()
SECRET = "a-secret-of-ours"
LEAST = {"signed": "{body}", "signature_header": "X-Acme-Signature"}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    with only_here():
        yield


def declare(name: str = "acme", /, **fields: Any) -> SchemeDeclaration:
    declaration = declaration_of(name, LEAST | fields)
    outbox.declare_scheme(declaration)
    return declaration


def headers_of(secrets: Any = SECRET, at: int = AT, body: bytes = BODY) -> dict[str, str]:
    return outbox.signed_headers(secrets, ID, body, timestamp=at, scheme="acme", type=TYPE)


def digest(secret: str | bytes, text: str, hash_name: str = "sha256") -> bytes:
    """The HMAC as the manuals of other senders write it."""
    key = secret if isinstance(secret, bytes) else secret.encode()
    return hmac.new(key, text.encode(), getattr(hashlib, hash_name)).digest()


# What others' manuals say their receivers compute, and the declaration by which we send it.

SLACK = {"signed": "v0:{timestamp}:{body}", "signature_header": "X-Slack-Signature", "value": "v0={signature}",
         "timestamp_header": "X-Slack-Request-Timestamp"}  # fmt: skip
PADDLE = {"signed": "{timestamp}:{body}", "signature_header": "Paddle-Signature", "several": True, "separator": ";",
          "value": "ts={timestamp};h1={signature}"}  # fmt: skip
SHOPIFY = {"signed": "{body}", "signature_header": "X-Shopify-Hmac-Sha256", "encoding": "base64",
           "type_header": "X-Shopify-Topic", "id_header": "X-Shopify-Webhook-Id"}  # fmt: skip
ZENDESK = {"signed": "{timestamp}{body}", "signature_header": "X-Zendesk-Webhook-Signature", "encoding": "base64",
           "timestamp_header": "X-Zendesk-Webhook-Signature-Timestamp"}  # fmt: skip
INTERCOM = {"signed": "{body}", "signature_header": "X-Hub-Signature", "value": "sha1={signature}", "hash": "sha1"}
PAYSTACK = {"signed": "{body}", "signature_header": "x-paystack-signature", "hash": "sha512"}
EVERYTHING = {"signed": "{type}|{id}|{timestamp}|{body}|end", "signature_header": "X-Sig", "type_header": "X-Type",
              "value": 'alg="hs512", at="{timestamp}", sig="{signature}"', "separator": ", ", "hash": "sha512",
              "encoding": "base64", "key": "whsec", "several": True}  # fmt: skip
TEXT = BODY.decode()
MANUALS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "Slack": (SLACK, {"X-Slack-Signature": f"v0={digest(SECRET, f'v0:{AT}:{TEXT}').hex()}",
                      "X-Slack-Request-Timestamp": str(AT)}),
    "Paddle": (PADDLE, {"Paddle-Signature": f"ts={AT};h1={digest(SECRET, f'{AT}:{TEXT}').hex()}"}),
    "Shopify": (SHOPIFY, {"X-Shopify-Hmac-Sha256": base64.b64encode(digest(SECRET, TEXT)).decode(),
                          "X-Shopify-Topic": TYPE, "X-Shopify-Webhook-Id": ID}),
    "Zendesk": (ZENDESK, {"X-Zendesk-Webhook-Signature": base64.b64encode(digest(SECRET, f"{AT}{TEXT}")).decode(),
                          "X-Zendesk-Webhook-Signature-Timestamp": str(AT)}),
    "Intercom": (INTERCOM, {"X-Hub-Signature": f"sha1={digest(SECRET, TEXT, 'sha1').hex()}"}),
    "Paystack": (PAYSTACK, {"x-paystack-signature": digest(SECRET, TEXT, "sha512").hex()}),
}  # fmt: skip


@pytest.mark.parametrize("sender", MANUALS)
def test_a_declared_scheme_writes_what_the_manual_of_another_sender_says(sender: str) -> None:
    fields, expected = MANUALS[sender]
    declare(**fields)
    headers = headers_of()
    along = {"webhook-id": ID, "webhook-timestamp": str(AT)}
    assert headers == expected | along
    assert outbox.verify(SECRET, expected, BODY, now=AT, scheme="acme").body == BODY


def test_everything_a_declaration_can_say_at_once() -> None:
    declare(**EVERYTHING)
    old, new = new_secret("acme"), new_secret("acme")
    headers = headers_of([new, old])
    signatures = [
        base64.b64encode(digest(base64.b64decode(secret[6:]), f"{TYPE}|{ID}|{AT}|{TEXT}|end", "sha512")).decode()
        for secret in (new, old)
    ]
    assert headers == {
        "X-Type": TYPE,
        "X-Sig": f'alg="hs512", at="{AT}", sig="{signatures[0]}", sig="{signatures[1]}"',
        "webhook-id": ID,
        "webhook-timestamp": str(AT),
    }
    for secret in (old, new):
        webhook = outbox.verify(secret, headers, BODY, now=AT, scheme="acme")
        assert (webhook.id, webhook.timestamp, webhook.body) == (ID, AT, BODY)


def test_a_key_longer_than_a_block_is_hashed_first() -> None:
    for hash_name in ("sha256", "sha512", "sha1"):
        with only_here():
            declare(hash=hash_name)
            for size in (63, 64, 65, 127, 128, 129, 512):
                assert headers_of("k" * size)["X-Acme-Signature"] == digest("k" * size, TEXT, hash_name).hex()


def test_the_tolerance_is_the_schemes_unless_the_receiver_says_otherwise() -> None:
    declare(signed="{timestamp}.{body}", tolerance_seconds=60)
    assert outbox.verify(SECRET, headers_of(), BODY, now=AT + 60, scheme="acme").timestamp == AT
    with pytest.raises(SignatureError, match="more than 60 s"):
        outbox.verify(SECRET, headers_of(), BODY, now=AT + 61, scheme="acme")
    assert outbox.verify(SECRET, headers_of(), BODY, now=AT + 61, scheme="acme", tolerance_seconds=61).timestamp == AT


@pytest.mark.parametrize(
    ("key", "beginning", "refused"),
    [("text", "", "short"), ("whsec", "whsec_", "my-secret-key"), ("whsec-as-text", "whsec_", "")],
)
def test_the_word_of_its_key_decides_which_secrets_it_takes(key: str, beginning: str, refused: str) -> None:
    declare(key=key)
    made = new_secret("acme")
    assert made.startswith(beginning)
    assert check_secret(made, "acme") == made
    with pytest.raises(SubscriptionError, match=r"^secret: "):
        check_secret(refused, "acme")


# The registry.


def test_the_same_declaration_may_be_repeated_and_another_of_its_name_not() -> None:
    first = declare()
    declare()
    assert SCHEMES["acme"].row == first
    with pytest.raises(SubscriptionError, match=r"^schemes\.acme: another scheme has this name; choose a name"):
        declare(hash="sha512")
    assert SCHEMES["acme"].row == first


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_no_declaration_takes_the_name_of_a_scheme_that_is_built_in(row: SchemeDeclaration) -> None:
    before = SCHEMES[row.name]
    with pytest.raises(SubscriptionError, match=rf"^schemes\.{row.name}: another scheme has this name"):
        declare(row.name, signed="{body}", signature_header="X-Other")
    assert SCHEMES[row.name] is before


def test_a_row_can_be_written_as_a_table_and_read_back() -> None:
    for row in ROWS:
        table = {name: value for name, value in asdict(row).items() if name != "name"}
        assert declaration_of(row.name, json.loads(json.dumps(table))) == row


def test_every_header_that_it_writes_is_reserved() -> None:
    headers = {"X-Acme-Signature": "a", "X-Acme-Id": "b", "X-Acme-At": "c", "X-Acme-Type": "d"}
    assert check_headers(headers) == headers
    declare(id_header="X-Acme-Id", timestamp_header="X-Acme-At", type_header="X-Acme-Type")
    for name in headers:
        for spelling in (name, name.lower(), name.replace("-", "_")):
            with pytest.raises(SubscriptionError, match="is set by the relay or by a signature"):
                check_headers({spelling: "x"})


@pytest.mark.parametrize("name", ["acme", "md5", "a-b-2"])
def test_an_unknown_name_is_refused_with_the_ways_to_declare_it(name: str) -> None:
    mend = rf"; or declare {name}: \[schemes\.{name}\] in the relay's configuration, outbox\.declare_scheme\(\) in Py"
    with pytest.raises(SubscriptionError, match=rf"^scheme: choose one of standard, .*leads{mend}"):
        outbox.signed_headers(SECRET, ID, BODY, scheme=name)


def test_the_schema_takes_every_name_that_may_be_declared() -> None:
    tables = Path(outbox.__file__).parent / "schema" / "migrations" / "0001_tables.sql"
    (pattern,) = re.findall(r"constraint scheme_is_a_word check \(scheme ~ '(.*)'\)", tables.read_text())
    for name in ("a", "0", "a" * 32, "a-", "a" * 33, "-a", "A", "a_b", "a.b", "", "é", "a\n"):
        assert is_scheme_name(name) == (re.fullmatch(pattern.strip("^$"), name) is not None), name


# What is refused. Field and mend of each; the table's name stands before the field.

WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "no name": ("", {}, r"^schemes\.'': not a name; use 1 to 32 of a-z"),
    "upper case": ("Acme", {}, r"^schemes\.Acme: not a name"),
    "name too long": ("a" * 33, {}, r"^schemes\.a+: not a name"),
    "name with a dot": ("acme.com", {}, r"^schemes\.'acme\.com': not a name"),
    "name begins with a dash": ("-acme", {}, r"^schemes\.-acme: not a name"),
    "unknown key": ("acme", {"sign": "{body}"}, r"sign: unknown key; did you mean signed\?"),
    "unknown key unlike any": ("acme", {"xyz": 1}, r"xyz: unknown key; there are signed, "),
    "name in the table": ("acme", {"name": "b"}, r"name: unknown key"),
    "signed no text": ("acme", {"signed": ["body"]}, r"signed: a list is not text; write it in quotes"),
    "signed empty": ("acme", {"signed": ""}, r"signed: must be 1 to 256 characters of ASCII"),
    "signed not ASCII": ("acme", {"signed": "é{body}"}, r"signed: must be 1 to 256 characters of ASCII"),
    "signed too long": ("acme", {"signed": "a" * 251 + "{body}"}, r"signed: must be 1 to 256"),
    "no body": ("acme", {"signed": "{id}.{timestamp}"}, r"signed: \{body\} is missing; every signature needs it"),
    "body twice": ("acme", {"signed": "{body}:{body}"}, r"signed: \{body\} stands in it twice; once is enough"),
    "unknown part": ("acme", {"signed": "{url}:{body}"}, r"signed: \{url\} is no part of it; there are \{id\}, "),
    "empty part": ("acme", {"signed": "{}:{body}"}, r"signed: \{\} is no part of it"),
    "lone brace": ("acme", {"signed": "{:{body}"}, r"signed: has a brace that belongs to no part"),
    "format language": ("acme", {"signed": "{body!r}{body}"}, r"signed: has a brace that belongs to no part"),
    "id and body together": ("acme", {"signed": "{id}{body}"}, r"signed: nothing tells where \{id\} ends"),
    "id and time together": ("acme", {"signed": "{id}{timestamp}.{body}"}, r"signed: nothing tells where \{id\} ends"),
    "id divided by a letter": ("acme", {"signed": "{id}x{body}"}, r"signed: nothing tells where \{id\} ends"),
    "type divided by a dot": (
        "acme", {"signed": "{type}.{body}", "type_header": "X-T"}, r"signed: nothing tells where \{type\} ends"
    ),
    "type behind the body": (
        "acme", {"signed": "{body}.{type}", "type_header": "X-T"}, r"signed: nothing tells where \{type\} ends"
    ),
    "time divided by a digit": ("acme", {"signed": "{timestamp}0{body}"}, r"signed: nothing tells where \{timestamp\}"),
    "time and id together": (
        "acme", {"signed": "{timestamp}{id}:{body}"}, r"signed: nothing tells where \{timestamp\} ends; divide it"
    ),
    "type in no header": ("acme", {"signed": "{type}:{body}"}, r"type_header: missing; \{type\} is signed"),
    "no signature": ("acme", {"value": "sha256="}, r"value: \{signature\} is missing; every signature needs it"),
    "signature twice": ("acme", {"value": "{signature},{signature}"}, r"value: \{signature\} stands in it twice"),
    "body in the header": ("acme", {"value": "{body}{signature}"}, r"value: \{body\} is no part of it"),
    "value with a line end": ("acme", {"value": "a\r\nX: {signature}"}, r"value: must be 1 to 256 characters of vis"),
    "value ends in a line end": ("acme", {"value": "{signature}\n"}, r"value: must be 1 to 256 characters of visible"),
    "value begins with a space": ("acme", {"value": " {signature}"}, r"value: must be 1 to 256 characters of visible"),
    "value no text": ("acme", {"value": 7}, r"value: 7 is not text"),
    "no separator": ("acme", {"value": "t={timestamp},v1={signature}"}, r"separator: does not divide \{timestamp\}"),
    "another separator": (
        "acme", {"value": "t={timestamp},v1={signature}", "separator": ";"}, r"separator: does not divide \{timestamp\}"
    ),
    "several without separator": ("acme", {"several": True}, r"separator: missing; with several = true it divides"),
    "separator of signatures": ("acme", {"separator": "="}, r"separator: '=' is not one of '', ' ', ',', "),
    "time without a name": (
        "acme", {"value": "{timestamp},{signature}", "separator": ","}, r"value: nothing tells \{timestamp\} from"
    ),
    "time named like a signature": (
        "acme", {"value": "t={timestamp},t={signature}", "separator": ","}, r"value: nothing tells \{timestamp\} from"
    ),
    "time named by a hex digit": (
        "acme", {"value": "a{timestamp},{signature}", "separator": ","}, r"value: nothing tells \{timestamp\} from"
    ),
    "several no bool": ("acme", {"several": "yes"}, r"several: yes is not true or false"),
    "several a number": ("acme", {"several": 1}, r"several: 1 is not true or false"),
    "unknown hash": ("acme", {"hash": "md5"}, r"hash: md5 is not one of 'sha256', 'sha512', 'sha1'"),
    "unknown encoding": ("acme", {"encoding": "base32"}, r"encoding: base32 is not one of 'hex', 'base64'"),
    "unknown key form": ("acme", {"key": "raw"}, r"key: raw is not one of 'text', 'whsec', 'whsec-as-text'"),
    "no header": ("acme", {"signature_header": ""}, r"signature_header: '' is not a header's name"),
    "header with a line end": ("acme", {"signature_header": "X-A\r\nX-B"}, r"signature_header: .* is not a header's"),
    "header with a space": ("acme", {"id_header": "X A"}, r"id_header: 'X A' is not a header's name"),
    "header with an underscore": ("acme", {"id_header": "X_A"}, r"id_header: X_A is not a header's name"),
    "header that frames": ("acme", {"signature_header": "Content-Length"}, r"signature_header: Content-Length is writ"),
    "header of credentials": ("acme", {"signature_header": "Authorization"}, r"signature_header: Authorization is wri"),
    "header of a proxy": ("acme", {"type_header": "Proxy-Authorization"}, r"type_header: Proxy-Authorization is writ"),
    "header of the id": ("acme", {"signature_header": "Webhook-Id"}, r"signature_header: Webhook-Id carries the id al"),
    "header of the time": (
        "acme", {"id_header": "webhook-timestamp"}, r"id_header: webhook-timestamp carries the timestamp already"
    ),
    "one header twice": (
        "acme", {"id_header": "X-Acme", "type_header": "x-acme"}, r"id_header: X-Acme carries the type already; use an"
    ),
    "tolerance of nothing": ("acme", {"tolerance_seconds": 0}, r"tolerance_seconds: 0 is not a whole number from 1"),
    "tolerance for ever": ("acme", {"tolerance_seconds": 10**9}, r"tolerance_seconds: 1000000000 is not a whole numb"),
    "tolerance no number": ("acme", {"tolerance_seconds": "300"}, r"tolerance_seconds: 300 is not a whole number"),
    "tolerance true": ("acme", {"tolerance_seconds": True}, r"tolerance_seconds: True is not a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_declaration_is_refused_by_table_and_field(case: str) -> None:
    name, fields, complaint = WRONG[case]
    pattern = complaint if complaint.startswith("^") else rf"^schemes\.acme\.{complaint}"
    with pytest.raises(SubscriptionError, match=pattern) as refused:
        declare(name, **fields)
    assert "\n" not in str(refused.value)
    assert set(SCHEMES) == {row.name for row in ROWS}


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("{body}", r"^schemes\.acme: not a table; write \[schemes\.NAME\]"),
        ({}, r"^schemes\.acme\.signed: missing; write signed = '"),
        ({"signed": "{body}"}, r"^schemes\.acme\.signature_header: missing; write signature_header = '"),
    ],
)
def test_a_table_needs_two_keys(table: Any, complaint: str) -> None:
    with pytest.raises(SubscriptionError, match=complaint):
        declaration_of("acme", table)


# What a signature protects, for any declaration.

_dividers = st.sampled_from([":", "|", "\n", ":v0:", "; ", "/-/", ":."])
_around = st.sampled_from(["", "v0:", "%", "100%s ", "x", "\t"])
_prefixes = st.sampled_from(["", "sha256=", "v1,", "HMAC ", 'sig="', "%b", "=="])
_suffixes = st.sampled_from(["", '"', "=", "%", "."])
_optional = st.booleans()


@st.composite
def declarations(draw: st.DrawFn) -> SchemeDeclaration:
    """Return any declaration that makes sense."""
    parts = draw(st.permutations(["{body}", *draw(st.sets(st.sampled_from(["{id}", "{timestamp}", "{type}"])))]))
    divided = [piece for part in parts[1:] for piece in (draw(_dividers), part)]
    signed = "".join([draw(_around), parts[0], *divided, draw(_around)])
    if draw(_optional):
        signed = signed.replace("{timestamp}:{body}", "{timestamp}{body}")
    separator = draw(st.sampled_from(["", " ", ",", ", ", ";", "; ", "&", "|"]))
    value = f"{draw(_prefixes)}{{signature}}{draw(_suffixes)}"
    if separator and draw(_optional):
        value = draw(st.sampled_from(["t={timestamp}", 'ts="{timestamp}"', "at:{timestamp}"])) + separator + value
    if separator and draw(_optional):
        value += f"{separator}alg{draw(_suffixes)}"
    headers = {name: draw(st.sampled_from(["", f"X-{name[:2]}"])) for name in ("id_header", "timestamp_header")}
    return SchemeDeclaration(
        "acme", signed, "X-Sig", value, separator,
        several=bool(separator) and draw(_optional),
        hash=draw(st.sampled_from(["sha256", "sha512", "sha1"])),
        encoding=draw(st.sampled_from(["hex", "base64"])),
        key=draw(st.sampled_from(["text", "whsec", "whsec-as-text"])),
        type_header="X-Type" if "{type}" in signed else draw(st.sampled_from(["", "X-Type"])),
        **headers,
    )  # fmt: skip


_bodies = st.binary(max_size=40) | st.text("0123456789:|/-.v;\n {}", max_size=30).map(str.encode)
_ids = st.from_regex(r"evt_[a-z0-9_]{1,12}", fullmatch=True)
_types = st.from_regex(r"[A-Za-z0-9_]{1,6}(\.[A-Za-z0-9_]{1,6}){0,2}", fullmatch=True)
any_message = given(declarations(), _bodies, _ids, _types, st.data())


def signed_by(
    declaration: SchemeDeclaration, body: bytes, message_id: str, type_: str, secrets: list[str]
) -> dict[str, str]:
    headers = outbox.signed_headers(secrets, message_id, body, timestamp=AT, scheme="acme", type=type_)
    return {name.lower(): value for name, value in headers.items()}


@any_message
@settings(max_examples=300)
def test_what_any_scheme_signed_verifies_and_no_changed_byte_does(
    declaration: SchemeDeclaration, body: bytes, message_id: str, type_: str, data: st.DataObject
) -> None:
    with only_here(declaration):
        secrets = [new_secret("acme") for _ in range(2)]
        headers = signed_by(declaration, body, message_id, type_, secrets)
        for secret in secrets if declaration.several else secrets[:1]:
            webhook = outbox.verify(secret, headers, body, now=AT, scheme="acme")
            assert webhook.body == body
            assert webhook.id == (message_id if "{id}" in declaration.signed else "")
        with pytest.raises(SignatureError):
            outbox.verify(new_secret("acme"), headers, body, now=AT, scheme="acme")
        for changed in changes(declaration, headers, data):
            with pytest.raises(SignatureError):
                outbox.verify(secrets[0], changed, body, now=AT, scheme="acme")
        at = data.draw(st.integers(0, len(body)))
        others = {body[:at] + body[at + 1 :], body[:at] + b"x" + body[at:], body[:at] + b"\xff" + body[at + 1 :]}
        for other in others - {body}:
            with pytest.raises(SignatureError):
                outbox.verify(secrets, headers, other, now=AT, scheme="acme")


def changes(declaration: SchemeDeclaration, headers: dict[str, str], data: st.DataObject) -> Iterator[dict[str, str]]:
    """Change one character of everything that the signature protects, wherever the receiver reads it."""
    for part, name in SCHEMES["acme"].row.sources.items():
        value = headers[name]
        if part == "signature":
            pieces = value.split(declaration.separator) if declaration.separator else [value]
            number, element = next(each for each in enumerate(declaration.elements) if each[1].part == "signature")
            at = len(element.before) + data.draw(st.integers(0, 20))
            pieces[number] = edited(pieces[number], at)
            yield headers | {name: declaration.separator.join(pieces)}
        elif f"{{{part}}}" in declaration.signed:
            at = data.draw(st.integers(0, len(value) - 1))
            yield headers | {name: edited(value, at)}
            yield headers | {name: value[:at] + value[at + 1 :]}
    if declaration.is_stamped and "{timestamp}" in declaration.signed:
        yield headers | {"x-sig": headers["x-sig"].replace(str(AT), str(AT + 1))}


def edited(text: str, at: int) -> str:
    """Return the text with another character there."""
    return text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]


@any_message
@settings(max_examples=300)
def test_no_other_message_has_the_same_signed_text(
    declaration: SchemeDeclaration, body: bytes, message_id: str, type_: str, data: st.DataObject
) -> None:
    """An attacker moves characters between the body and the part beside it; the signature would still match."""
    text = declaration.text
    at = text.parts.index("body")
    beside = [(text.parts[at - 1], text.literals[at], True)] if at else []
    if at + 1 < len(text.parts):
        beside.append((text.parts[at + 1], text.literals[at + 1], False))
    sources = declaration.sources
    beside = [(part, divider, left) for part, divider, left in beside if part in sources]
    assume(beside)
    with only_here(declaration):
        secret = new_secret("acme")
        for part, divider, left in beside:
            tricky = body + divider.encode() + body if data.draw(_optional) else divider.encode() + body
            headers = signed_by(declaration, tricky, message_id, type_, [secret])
            for value, other in moved(headers[sources[part]], divider, tricky, left=left):
                with pytest.raises(SignatureError):
                    outbox.verify(secret, headers | {sources[part]: value}, other, now=AT, scheme="acme")


def moved(value: str, divider: str, body: bytes, *, left: bool) -> Iterator[tuple[str, bytes]]:
    """Yield each other value and body that make up the same text."""
    whole = value + divider + body.decode("latin-1") if left else body.decode("latin-1") + divider + value
    for at in range(len(whole) + 1):
        if left and whole[at : at + len(divider)] == divider:
            other, rest = whole[:at], whole[at + len(divider) :]
        elif not left and whole[at : at + len(divider)] == divider:
            other, rest = whole[at + len(divider) :], whole[:at]
        else:
            continue
        if other != value:
            yield other, rest.encode("latin-1")


def test_what_a_scheme_does_not_sign_may_be_altered_and_the_row_says_so() -> None:
    declaration = declare(id_header="X-Id", timestamp_header="X-At")
    assert declaration.text.parts == ("body",)
    altered = headers_of() | {"X-Id": "evt_other", "X-At": str(AT + 100)}
    webhook = outbox.verify(SECRET, altered, BODY, now=AT, scheme="acme")
    assert (webhook.id, webhook.timestamp) == ("", AT + 100)


def test_a_declaration_cannot_be_changed() -> None:
    declaration = declare()
    with pytest.raises(AttributeError):
        declaration.signed = "{id}:{body}"  # type: ignore[misc]
    with pytest.raises(SubscriptionError):
        replace(declaration, signed="")
    assert str(declaration) == "acme"
