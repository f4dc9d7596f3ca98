"""Signatures: the published vectors, an independent implementation both ways, and nothing but two errors."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as OfficialWebhook
from standardwebhooks.webhooks import WebhookVerificationError

from outbox.errors import ArgumentError, BodyError, SignatureError, SubscriptionError
from outbox.secret import Secret
from outbox.signing.schemes import SCHEMES, signer
from outbox.signing.verify import check_key, check_secret, new_secret, sign, signed_headers, verify

CASES = json.loads((Path(__file__).parents[1] / "cases" / "signature_vectors.json").read_text("utf-8"))
VECTORS: list[dict[str, Any]] = CASES["vectors"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'


def _headers(vector: dict[str, Any]) -> dict[str, str]:
    standard = {
        "webhook-id": vector["id"],
        "webhook-timestamp": str(vector["timestamp"]),
        "webhook-signature": vector["webhook_signature"],
    }
    return vector.get("headers") or standard


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector_is_judged_as_published(vector: dict[str, Any]) -> None:
    body = base64.b64decode(vector["payload_base64"])
    if vector["must_verify"]:
        webhook = verify(vector["secret"], _headers(vector), body, now=vector["now"])
        assert (webhook.id, webhook.timestamp, webhook.body) == (vector["id"], vector["timestamp"], body)
    else:
        with pytest.raises(ArgumentError if vector["name"] in UNUSABLE_SECRETS else SignatureError):
            verify(vector["secret"], _headers(vector), body, now=vector["now"])


UNUSABLE_SECRETS = ("empty-secret", "empty-prefixed-secret")
SIGNED = [v for v in VECTORS if v["must_verify"] and " " not in v["webhook_signature"]]


@pytest.mark.parametrize("vector", SIGNED, ids=lambda vector: vector["name"])
def test_vector_is_signed_as_published(vector: dict[str, Any]) -> None:
    body = base64.b64decode(vector["payload_base64"])
    assert sign(vector["secret"], vector["id"], vector["timestamp"], body) == vector["webhook_signature"]


@pytest.mark.parametrize("vector", CASES["ed25519"], ids=lambda vector: vector["name"])
@pytest.mark.parametrize("key", ["public_key", "secret", "hmac_secret"])
def test_vector_of_ed25519_is_judged_as_published(vector: dict[str, Any], key: str) -> None:
    """The label decides the algorithm: a key of one kind passes over the signatures of the other."""
    body, secret = base64.b64decode(vector["payload_base64"]), vector.get(key, SECRET)
    if vector["must_verify"] and key in vector:
        assert verify(secret, _headers(vector), body, now=vector["now"]).id == vector["id"]
    else:
        with pytest.raises(SignatureError):
            verify(secret, _headers(vector), body, now=vector["now"])


@pytest.mark.parametrize("vector", [v for v in CASES["ed25519"] if v["must_verify"]], ids=lambda vector: vector["name"])
def test_vector_of_ed25519_is_signed_as_published(vector: dict[str, Any]) -> None:
    secrets = [vector[key] for key in ("hmac_secret", "secret") if key in vector]
    body = base64.b64decode(vector["payload_base64"])
    headers = signed_headers(secrets, vector["id"], body, timestamp=vector["timestamp"])
    assert headers["webhook-signature"] == vector["webhook_signature"]


_ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="."), min_size=1, max_size=40)
_secrets = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())


@given(_secrets, _ids, st.dictionaries(st.text(), st.integers() | st.text()))
@settings(max_examples=60)
def test_the_official_library_accepts_what_we_sign(secret: str, message_id: str, data: dict[str, Any]) -> None:
    body = json.dumps(data).encode()
    assert OfficialWebhook(secret).verify(body, signed_headers(secret, message_id, body)) == data


@given(_secrets, _ids, st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=60)
def test_we_accept_what_the_official_library_signs(secret: str, message_id: str, text: str) -> None:
    from datetime import UTC, datetime

    signature = OfficialWebhook(secret).sign(message_id, datetime.fromtimestamp(AT, UTC), text)
    headers = {"webhook-id": message_id, "webhook-timestamp": str(AT), "webhook-signature": signature}
    assert verify([secret], headers, text.encode(), now=AT).body == text.encode()


def test_the_official_library_refuses_what_was_changed() -> None:
    headers = signed_headers(SECRET, ID, BODY)
    with pytest.raises(WebhookVerificationError):
        OfficialWebhook(SECRET).verify(BODY + b" ", headers)


class Hostile(str):
    """Text whose every method raises, as the object of a stranger may."""

    def fail(self, *_: object) -> Any:
        raise RuntimeError("hostile")

    lower = strip = startswith = removeprefix = encode = __eq__ = __hash__ = __len__ = __iter__ = __str__ = fail


class HostileInt(int):
    """A number that will not be one."""

    __float__ = __abs__ = __sub__ = __format__ = Hostile.fail


class Broken:
    """Headers that break while they are read."""

    @property
    def items(self) -> Any:
        raise ZeroDivisionError("broken")


def breaking() -> Iterator[tuple[str, str]]:
    yield "webhook-id", ID
    raise KeyError("broken")


def released() -> memoryview:
    view = memoryview(BODY)
    view.release()
    return view


_strange = (
    st.builds(Broken) | st.builds(breaking) | st.builds(released) | st.builds(Hostile, st.text()) | st.builds(object)
)
_wild = st.text() | st.text(st.characters(categories=["Cs"])) | st.binary() | st.none() | st.integers() | _strange
_names = st.sampled_from(["webhook-id", "Webhook-Timestamp", b"WEBHOOK-SIGNATURE", "HTTP_WEBHOOK_SIGNATURE"]) | _wild
_hashable = st.text() | st.binary() | st.none() | st.integers()
_huge = st.sampled_from(
    [10**400, -(10**400), True, math.nan, math.inf, -math.inf, Decimal("NaN"), HostileInt(5), "300", None]
)


@given(
    headers=st.dictionaries(_hashable, _wild) | st.lists(st.tuples(_names, _wild)) | _wild | st.lists(_wild),
    body=_wild,
    secrets=st.just(SECRET) | st.lists(st.just(SECRET) | _wild) | _wild,
    now=st.none() | st.floats() | st.integers() | _huge,
    tolerance=st.floats() | st.integers() | _huge,
    scheme=st.sampled_from(sorted(SCHEMES)) | _wild,
)
@settings(max_examples=400)
@example(headers={}, body=b"", secrets=[], now=None, tolerance=300, scheme="standard")
def test_verify_raises_nothing_but_its_two_errors(
    headers: Any, body: Any, secrets: Any, now: Any, tolerance: Any, scheme: Any
) -> None:
    with pytest.raises((SignatureError, ArgumentError)):
        verify(secrets, headers, body, now=now, tolerance_seconds=tolerance, scheme=scheme)


@given(
    headers=st.dictionaries(_hashable, _wild) | st.lists(st.tuples(_names, _wild)),
    body=st.binary(),
    scheme=st.sampled_from(sorted(SCHEMES)),
)
@settings(max_examples=200)
def test_whatever_is_received_by_a_right_call_raises_nothing_but_signature_error(
    headers: Any, body: bytes, scheme: str
) -> None:
    with pytest.raises(SignatureError):
        verify(new_secret(scheme), headers, body, scheme=scheme)


@pytest.mark.field("F49")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"secrets": None}, "secrets"), ({"secrets": [SECRET, None]}, "secrets"),
        ({"secrets": "whsec_"}, "secret"), ({"secrets": "not base64!"}, "secret"), ({"secrets": b"whsec_"}, "secrets"),
        ({"secrets": [SECRET, "whsk_AAAA"]}, "secret"), ({"scheme": "standrad"}, "scheme"),
        ({"scheme": None}, "scheme"),
        ({"body": BODY.decode()}, "body"), ({"body": None}, "body"), ({"body": {"a": 1}}, "body"),
        ({"headers": 1}, "headers"), ({"now": "1"}, "now"), ({"now": math.nan}, "now"),
        ({"tolerance_seconds": -1}, "tolerance_seconds"), ({"tolerance_seconds": True}, "tolerance_seconds"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("received", ["right", "forged", "nothing"])
def test_a_mistake_in_the_program_is_no_forged_request(change: dict[str, Any], named: str, received: str) -> None:
    """It is told whatever arrives, so that the first request shows it, and never by the error that becomes a 401."""
    signed_by = {"right": SECRET, "forged": OTHER}.get(received)
    headers = signed_headers(signed_by, ID, BODY, timestamp=AT) if signed_by else {}
    call: dict[str, Any] = {"secrets": SECRET, "headers": headers, "body": BODY, "now": AT} | change
    with pytest.raises(ArgumentError, match=f"^{named}: ") as refused:
        verify(**call)
    assert not isinstance(refused.value, SignatureError)
    assert isinstance(refused.value, ValueError | TypeError)


def test_without_any_secret_nothing_verifies() -> None:
    """A list of secrets is data: of a sender whom nobody knows it is empty."""
    with pytest.raises(SignatureError, match=r"^secrets: there is none"):
        verify([], signed_headers(SECRET, ID, BODY, timestamp=AT), BODY, now=AT)


@pytest.mark.field("F118")
@pytest.mark.parametrize(
    "body", [b"9" * 5000, b"[" * 200_000 + b"]" * 200_000, b"[" * 200_000, b'{"a":', b"\xff", b"", b'"\x00"', b"{} {}"]
)
def test_a_body_that_is_no_json_is_told_by_one_error(body: bytes) -> None:
    webhook = verify(SECRET, signed_headers(SECRET, ID, body, timestamp=AT), body, now=AT)
    with pytest.raises(BodyError, match=r"^body: is no JSON that can be read: ") as refused:
        webhook.json()
    assert isinstance(refused.value, ValueError)
    assert len(str(refused.value)) < 200


_FIELD = 2**255 - 19
_D = -121665 * pow(121666, -1, _FIELD) % _FIELD


def _plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Add two points of edwards25519 (RFC 8032, 5.1.4)."""
    (x1, y1), (x2, y2) = one, other
    product = _D * x1 * x2 * y1 * y2 % _FIELD
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, _FIELD) % _FIELD
    return x, (y1 * y2 + x1 * x2) * pow(1 - product, -1, _FIELD) % _FIELD


def _low_order() -> set[bytes]:
    """Every spelling of every point whose order divides 8, found from one of order 8."""
    y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _FIELD) % _FIELD
    x = pow(square, (_FIELD + 3) // 8, _FIELD)
    x = x if x * x % _FIELD == square else x * pow(2, (_FIELD - 1) // 4, _FIELD) % _FIELD
    points = [(0, 1)]
    for _ in range(7):
        points.append(_plus(points[-1], (x, y)))
    assert len(set(points)) == 8
    assert _plus(points[-1], (x, y)) == (0, 1)
    spelled = {value for _, each in points for value in (each, each + _FIELD) if value < 2**255}
    return {(value | sign << 255).to_bytes(32, "little") for value in spelled for sign in (0, 1)}


@pytest.mark.field("F102")
@pytest.mark.parametrize("raw", sorted(_low_order()), ids=bytes.hex)
def test_a_public_key_of_low_order_is_refused(raw: bytes) -> None:
    key = "whpk_" + base64.b64encode(raw).decode()
    forged = "v1a," + base64.b64encode(raw + bytes(32)).decode()
    headers = signed_headers(SECRET, ID, BODY, timestamp=AT) | {"webhook-signature": forged}
    with pytest.raises(ArgumentError, match=r"^secret: the whpk_ key is "):
        verify(key, headers, BODY, now=AT)
    with pytest.raises(SubscriptionError, match=r"^secret: the whpk_ key is "):
        check_key(key)


@given(
    now=st.floats() | st.integers() | _huge,
    tolerance=st.just(math.nan)
    | st.integers(max_value=-1)
    | st.sampled_from([-(10**400), Decimal("NaN"), "300", True]),
)
@settings(max_examples=100)
def test_no_clock_or_tolerance_that_makes_no_sense_lets_a_message_pass(now: Any, tolerance: Any) -> None:
    """The message itself is right, so that the numbers are what is judged."""
    with pytest.raises(ArgumentError, match=r"^(tolerance_seconds|now): "):
        verify(SECRET, signed_headers(SECRET, ID, BODY, timestamp=AT), BODY, now=now, tolerance_seconds=tolerance)


@given(st.sampled_from(sorted(SCHEMES)), st.data())
@settings(max_examples=400)
def test_wild_values_in_the_right_headers_raise_nothing_else(scheme: str, data: st.DataObject) -> None:
    part = st.sampled_from(["t=1614265330", "v1=", ",", " ", "v1,", "v1a,", "sha256=", "0" * 64, "A" * 43 + "="])
    value = _wild | st.lists(part | st.text(max_size=3)).map("".join)
    headers = {name: data.draw(value) for name in SCHEMES[scheme].headers}
    with pytest.raises(SignatureError):
        verify([SECRET], headers, BODY, now=AT, scheme=scheme)


@given(st.text(st.characters(max_codepoint=0x2FF), max_size=60))
@settings(max_examples=200)
@example("v1, v1,")
@example("v1," + "A" * 43 + "=")
def test_no_signature_header_but_the_right_one_verifies(value: str) -> None:
    headers = signed_headers(SECRET, ID, BODY, timestamp=AT) | {"webhook-signature": value}
    with pytest.raises(SignatureError):
        verify(SECRET, headers, BODY, now=AT)


SENT = signed_headers(SECRET, ID, BODY, timestamp=AT)


def of_starlette() -> Any:
    from starlette.requests import Request

    pairs = [(name.lower().encode(), value.encode()) for name, value in SENT.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": pairs}).headers


def of_werkzeug() -> Any:
    """What Flask calls request.headers."""
    from werkzeug.test import EnvironBuilder
    from werkzeug.wrappers import Request

    return Request(EnvironBuilder(method="POST", headers=SENT, data=BODY).get_environ()).headers


def of_wsgi() -> Any:
    """An environ, which Django calls request.META."""
    from werkzeug.test import EnvironBuilder

    return EnvironBuilder(method="POST", headers=SENT, data=BODY).get_environ()


def of_http_client() -> Any:
    import http.client
    import io

    lines = "".join(f"{name.title()}: {value}\r\n" for name, value in SENT.items())
    return http.client.parse_headers(io.BytesIO(f"Host: x\r\n{lines}\r\n".encode()))


HEADERS: dict[str, Callable[[], Any]] = {
    "Starlette": of_starlette,
    "Werkzeug": of_werkzeug,
    "WSGI": of_wsgi,
    "http.client": of_http_client,
    "dict": lambda: SENT,
    "title case, as in Django's request.headers": lambda: {name.title(): value for name, value in SENT.items()},
    "pairs of bytes, as in an ASGI scope": lambda: [(name.encode(), value.encode()) for name, value in SENT.items()],
    "pairs": lambda: iter([*SENT.items(), ("Webhook-Id", ID), ("Accept", "*/*")]),
    "HTTP/2 upper case": lambda: {name.upper().encode(): value.encode() for name, value in SENT.items()},
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_headers_are_read_as_every_framework_has_them(headers: Callable[[], Any]) -> None:
    assert verify([SECRET], headers(), BODY, now=AT).id == ID


@pytest.mark.parametrize("body", [BODY, bytearray(BODY), memoryview(BODY)])
def test_the_body_may_be_any_bytes(body: Any) -> None:
    webhook = verify(Secret(SECRET), SENT, body, now=AT)
    assert (webhook.body, type(webhook.body), webhook.json()) == (BODY, bytes, json.loads(BODY))


def test_an_environ_may_contradict_itself_and_is_then_refused() -> None:
    with pytest.raises(SignatureError, match=r"^webhook-id: given twice"):
        verify(SECRET, {**SENT, "HTTP_WEBHOOK_ID": "evt_other"}, BODY, now=AT)


@pytest.mark.parametrize("name", SENT)
def test_each_header_is_needed(name: str) -> None:
    for headers in ({key: value for key, value in SENT.items() if key != name}, SENT | {name: ""}):
        with pytest.raises(SignatureError, match=f"^{name}: missing"):
            verify(SECRET, headers, BODY, now=AT)


def test_a_header_given_twice_with_different_values_is_refused() -> None:
    pairs = [*signed_headers(SECRET, ID, BODY).items(), ("Webhook-Id", "msg_other")]
    with pytest.raises(SignatureError, match=r"^webhook-id: given twice"):
        verify(SECRET, pairs, BODY)


def test_during_rotation_either_secret_verifies() -> None:
    headers = signed_headers([OTHER, SECRET], ID, BODY, timestamp=AT)
    assert headers["webhook-signature"] == f"{sign(OTHER, ID, AT, BODY)} {sign(SECRET, ID, AT, BODY)}"
    assert verify(SECRET, headers, BODY, now=AT) == verify([new_secret(), OTHER], headers, BODY, now=AT)


@pytest.mark.parametrize(("offset", "accepted"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_the_tolerance_counts_both_ways(offset: int, accepted: bool) -> None:
    headers = signed_headers(SECRET, ID, BODY, timestamp=AT)
    if accepted:
        assert verify(SECRET, headers, BODY, now=AT + offset).timestamp == AT
    else:
        with pytest.raises(SignatureError, match=r"^timestamp: more than 300 s away"):
            verify(SECRET, headers, BODY, now=AT + offset)


@pytest.mark.parametrize("now", [math.nan, math.inf])
def test_a_clock_that_is_no_number_verifies_nothing(now: float) -> None:
    with pytest.raises(ArgumentError, match=r"^now: "):
        verify(SECRET, signed_headers(SECRET, ID, BODY), BODY, now=now)


def test_an_id_with_a_dot_is_neither_signed_nor_verified() -> None:
    """'a.1' + 'b' and 'a' + '1.b' are the same signed bytes."""
    confused = {"webhook-id": f"{ID}.{AT}", "webhook-timestamp": "1", "webhook-signature": sign(SECRET, ID, AT, b"1.x")}
    with pytest.raises(SignatureError, match=r"^webhook-id"):
        verify(SECRET, confused, b"x", now=1)
    with pytest.raises(ValueError, match=r"^message_id: "):
        sign(SECRET, "msg.1", AT, b"")


@pytest.mark.parametrize("message_id", ["", "a b", "a\r\nb", "é", "x" * 257])
def test_an_id_that_is_no_header_value_is_not_signed(message_id: str) -> None:
    with pytest.raises(ValueError, match=r"^message_id: "):
        sign(SECRET, message_id, AT, b"")


@pytest.mark.parametrize("timestamp", [True, -1, 1.5, "1614265330", None])
def test_a_timestamp_that_is_no_whole_second_is_not_signed(timestamp: Any) -> None:
    with pytest.raises(ValueError, match=r"^timestamp: "):
        sign(SECRET, ID, timestamp, b"")


@pytest.mark.parametrize("word", ["", "a b", "a\r\nX-Evil: 1", "é", "x" * 129])
def test_a_type_that_is_no_header_value_is_not_signed(word: str) -> None:
    with pytest.raises(ValueError, match=r"^type: "):
        signed_headers(SECRET, ID, BODY, scheme="github", type=word)


def test_new_secrets_are_32_random_bytes() -> None:
    made = {new_secret() for _ in range(10)}
    assert len(made) == 10
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"))) == 32 for secret in made)
    assert {check_secret(secret) for secret in made} == made


KEY_25 = base64.b64encode(bytes(range(25))).decode()


@pytest.mark.case("B9")
@pytest.mark.parametrize("given_text", [f"whsec_{KEY_25}", KEY_25, KEY_25.rstrip("="), "whsec_" + KEY_25.rstrip("=")])
def test_prefix_and_padding_of_an_own_secret_are_completed(given_text: str) -> None:
    assert check_secret(given_text) == f"whsec_{KEY_25}"


REFUSED_SECRETS = {
    "B7 empty": "",
    "B7 prefix only": "whsec_",
    "B7 none": None,
    "B7 white space": "whsec_    ",
    "B8 23 bytes": "whsec_" + base64.b64encode(bytes(23)).decode(),
    "B8 65 bytes": "whsec_" + base64.b64encode(bytes(65)).decode(),
    "B9 url safe": "whsec_" + "-_" * 20,
    "B9 inner newline": "whsec_MfKQ9r8GKYqrTwjUPD8I\nLPZIo2LaLaSw",
    "B9 trailing newline": SECRET + "\n",
    "B9 spare bits": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwBr",
    "B9 too much padding": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw=",
    "B9 impossible length": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA",
    "B10 public key": "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
    "B10 other prefix": "sk_live_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "B10 pem": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----",
    "B10 jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N",
}


@pytest.mark.parametrize("given_text", REFUSED_SECRETS.values(), ids=REFUSED_SECRETS)
def test_a_bad_secret_is_refused_without_being_shown(given_text: Any) -> None:
    with pytest.raises(SubscriptionError, match=r"^secret: ") as refused:
        check_secret(given_text)
    hidden = str(given_text)[6:].strip()
    assert not hidden or hidden not in str(refused.value)


def test_no_secret_shows_in_a_repr() -> None:
    assert SECRET[6:] not in repr(signer("standard", [SECRET]))
    assert "lines" not in repr(signer("standard", [SECRET]))


def test_nothing_is_signed_without_a_secret() -> None:
    with pytest.raises(SubscriptionError, match=r"^secret: "):
        signer("standard", [])
    with pytest.raises(SubscriptionError, match=r"^secret: "):
        signed_headers("", ID, BODY)
