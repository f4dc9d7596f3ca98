"""Signatures: the published vectors, an independent implementation both ways, and nothing but SignatureError."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as OfficialWebhook
from standardwebhooks.webhooks import WebhookVerificationError

from outbox.errors import SignatureError, SubscriptionError
from outbox.schemes import signer
from outbox.signature import check_secret, new_secret, sign, signed_headers, verify

CASES = json.loads((Path(__file__).parents[1] / "cases" / "signature_vectors.json").read_text("utf-8"))
VECTORS: list[dict[str, Any]] = CASES["vectors"]

# Sections of the file that are not run here: `ed25519` (scheme v1a, which this version neither signs nor verifies;
# `test_v1a_is_ignored` holds that its signatures are passed over), and `rfc4231` (HMAC-SHA256 itself, over data that
# has not the form id.timestamp.body: it tests the standard library).

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
        with pytest.raises(SignatureError):
            verify(vector["secret"], _headers(vector), body, now=vector["now"])


SIGNED = [v for v in VECTORS if v["must_verify"] and " " not in v["webhook_signature"]]


@pytest.mark.parametrize("vector", SIGNED, ids=lambda vector: vector["name"])
def test_vector_is_signed_as_published(vector: dict[str, Any]) -> None:
    body = base64.b64decode(vector["payload_base64"])
    assert sign(vector["secret"], vector["id"], vector["timestamp"], body) == vector["webhook_signature"]


@pytest.mark.parametrize("vector", CASES["ed25519"], ids=lambda vector: vector["name"])
def test_v1a_is_ignored(vector: dict[str, Any]) -> None:
    """Without a v1 signature of one of the secrets nothing verifies; beside one, v1a changes nothing."""
    secret, body = vector.get("hmac_secret", SECRET), base64.b64decode(vector["payload_base64"])
    if "hmac_secret" in vector:
        assert verify(secret, _headers(vector), body, now=vector["now"]).id == vector["id"]
    else:
        with pytest.raises(SignatureError):
            verify(secret, _headers(vector), body, now=vector["now"])


_ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="."), min_size=1, max_size=40)
_secrets = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())


@given(_secrets, _ids, st.dictionaries(st.text(), st.integers() | st.text()))
@settings(max_examples=60, deadline=None)
def test_the_official_library_accepts_what_we_sign(secret: str, message_id: str, data: dict[str, Any]) -> None:
    body = json.dumps(data).encode()
    assert OfficialWebhook(secret).verify(body, signed_headers(secret, message_id, body)) == data


@given(_secrets, _ids, st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=60, deadline=None)
def test_we_accept_what_the_official_library_signs(secret: str, message_id: str, text: str) -> None:
    from datetime import UTC, datetime

    signature = OfficialWebhook(secret).sign(message_id, datetime.fromtimestamp(AT, UTC), text)
    headers = {"webhook-id": message_id, "webhook-timestamp": str(AT), "webhook-signature": signature}
    assert verify([secret], headers, text.encode(), now=AT).body == text.encode()


def test_the_official_library_refuses_what_was_changed() -> None:
    headers = signed_headers(SECRET, ID, BODY)
    with pytest.raises(WebhookVerificationError):
        OfficialWebhook(SECRET).verify(BODY + b" ", headers)


_wild = st.text() | st.binary() | st.none() | st.integers()
_names = st.sampled_from(["webhook-id", "Webhook-Timestamp", b"WEBHOOK-SIGNATURE", "webhook-signature"]) | _wild


@given(
    headers=st.dictionaries(_names, _wild) | st.lists(st.tuples(_names, _wild)) | _wild | st.lists(_wild),
    body=_wild,
    secrets=st.just(SECRET) | st.lists(st.just(SECRET) | _wild) | _wild,
    now=st.none() | st.floats() | st.integers(),
    tolerance=st.floats() | st.integers(),
)
@settings(max_examples=300, deadline=None)
@example(headers={}, body=b"", secrets=[], now=None, tolerance=300)
def test_verify_raises_nothing_but_signature_error(
    headers: Any, body: Any, secrets: Any, now: Any, tolerance: Any
) -> None:
    with pytest.raises(SignatureError):
        verify(secrets, headers, body, now=now, tolerance_seconds=tolerance)


@given(st.text(st.characters(max_codepoint=0x2FF), max_size=60))
@settings(max_examples=200, deadline=None)
@example("v1, v1,")
@example("v1," + "A" * 43 + "=")
def test_no_signature_header_but_the_right_one_verifies(value: str) -> None:
    headers = signed_headers(SECRET, ID, BODY, timestamp=AT) | {"webhook-signature": value}
    with pytest.raises(SignatureError):
        verify(SECRET, headers, BODY, now=AT)


def test_headers_may_be_pairs_bytes_and_any_case() -> None:
    pairs = [(name.title().encode(), value.encode()) for name, value in signed_headers(SECRET, ID, BODY).items()]
    assert verify([SECRET], pairs, BODY).id == ID
    assert verify([SECRET], [*pairs, ("Webhook-Id", ID), ("Accept", "*/*")], bytearray(BODY)).json() == json.loads(BODY)


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
    with pytest.raises(SignatureError):
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


def test_new_secrets_are_32_random_bytes() -> None:
    made = {new_secret() for _ in range(10)}
    assert len(made) == 10
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"))) == 32 for secret in made)
    assert {check_secret(secret) for secret in made} == made


KEY_25 = base64.b64encode(bytes(range(25))).decode()


@pytest.mark.parametrize("given_text", [f"whsec_{KEY_25}", KEY_25, KEY_25.rstrip("="), "whsec_" + KEY_25.rstrip("=")])
def test_b9_prefix_and_padding_of_an_own_secret_are_completed(given_text: str) -> None:
    assert check_secret(given_text) == f"whsec_{KEY_25}"


REFUSED_SECRETS = {
    "b7_empty": "",
    "b7_prefix_only": "whsec_",
    "b7_none": None,
    "b7_white_space": "whsec_    ",
    "b8_23_bytes": "whsec_" + base64.b64encode(bytes(23)).decode(),
    "b8_65_bytes": "whsec_" + base64.b64encode(bytes(65)).decode(),
    "b9_url_safe": "whsec_" + "-_" * 20,
    "b9_inner_newline": "whsec_MfKQ9r8GKYqrTwjUPD8I\nLPZIo2LaLaSw",
    "b9_trailing_newline": SECRET + "\n",
    "b9_spare_bits": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwBr",
    "b9_too_much_padding": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw=",
    "b9_impossible_length": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA",
    "b10_public_key": "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
    "b10_other_prefix": "sk_live_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "b10_pem": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----",
    "b10_jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N",
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
