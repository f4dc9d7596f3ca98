"""Signature schemes: published vectors, receivers' own logic, which secrets each takes, and what each refuses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outbox.errors import ArgumentError, SignatureError, SubscriptionError
from outbox.signing.schemes import SCHEMES, named, signer, written_headers
from outbox.signing.schemes.keys import mac
from outbox.signing.verify import check_secret, new_secret, public_key, signed_headers, verify
from outbox.subscriptions.headers import is_reserved

CASES = json.loads((Path(__file__).parents[1] / "cases" / "signature_vectors.json").read_text("utf-8"))
ID, AT, BODY = "evt_01K3V9T2", 1_700_000_000, '{"type":"order.placed","data":{"name":"Grüße","n":10.0}}'.encode()
TYPE = "order.placed"
SECRETS = {name: check_secret("whsec_" + "MfKQ9r8G" * 5, name) for name in SCHEMES}
OTHERS = {name: check_secret("whsec_" + "C2FVsBQI" * 5, name) for name in SCHEMES}
TEXT_SCHEMES = [name for name in SCHEMES if name not in ("standard", "svix")]
SEVERAL = [name for name, scheme in SCHEMES.items() if scheme.several_signatures]
SIGNED_ID = ["standard", "svix"]
TIMED = ["standard", "svix", "stripe", "convoy-advanced", "leads"]
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def headers_of(scheme: str, secret: str | list[str] | None = None, at: int = AT) -> dict[str, str]:
    return signed_headers(secret or SECRETS[scheme], ID, BODY, timestamp=at, scheme=scheme, type=TYPE)


@pytest.mark.parametrize("case", CASES["rfc4231"], ids=lambda case: case["name"])
def test_the_hash_is_that_of_rfc_4231(case: dict[str, str]) -> None:
    digest = mac(bytes.fromhex(case["key_hex"]), "sha256", "hex")(bytes.fromhex(case["data_hex"])).decode()
    assert digest[: len(case["hmac_sha256_hex"])] == case["hmac_sha256_hex"]


PUBLISHED = {
    # docs.github.com, "Validating webhook deliveries"
    "github": (
        *("It's a Secret to Everybody", b"Hello, World!", "X-Hub-Signature-256"),
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    ),
    # frain-dev/convoy, pkg/signature/testdata
    "convoy": (
        *("convoy-webhook-secret", b'{"event":"charge.success","amount":1000,"currency":"NGN"}', "X-Convoy-Signature"),
        "244449b7f48cbc2709060c9dcdc2b3aa47a78f540430579015c579fb12defbb4",
    ),
    "convoy-advanced": (
        *("convoy-webhook-secret", b'{"event":"charge.success","amount":1000,"currency":"NGN"}', "X-Convoy-Signature"),
        "t=1700000000,v1=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c",
    ),
}


@pytest.mark.parametrize("scheme", PUBLISHED)
def test_signatures_are_those_that_the_vendor_publishes(scheme: str) -> None:
    secret, body, header, value = PUBLISHED[scheme]
    headers = signed_headers(check_secret(secret, scheme), ID, body, timestamp=AT, scheme=scheme)
    assert headers[header] == value
    assert verify(secret, {header: value}, body, scheme=scheme, now=AT).body == body


def sha256_hex(secret: str, text: str) -> str:
    """What the verify_signature() of the papers on S2 and S3 computes."""
    return hmac.new(secret.encode("utf-8"), text.encode("utf-8"), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("scheme", "header", "expected"),
    [
        ("fulfil", "X-Webhook-Signature", lambda secret: f"sha256={sha256_hex(secret, BODY.decode())}"),
        ("soundhash", "X-Webhook-Signature", lambda secret: sha256_hex(secret, BODY.decode())),
        ("leads", "X-Webhook-Signature-256", lambda secret: f"sha256={sha256_hex(secret, BODY.decode())}"),
        ("stripe", "Stripe-Signature", lambda secret: f"t={AT},v1={sha256_hex(secret, f'{AT}.{BODY.decode()}')}"),
    ],
)
def test_signatures_are_those_that_its_receivers_compute(
    scheme: str, header: str, expected: Callable[[str], str]
) -> None:
    for secret in ("my-secret-key", "größe-und-salz", new_secret(scheme)):
        assert headers_of(scheme, secret)[header] == expected(secret)


def test_further_headers_are_those_that_receivers_look_for() -> None:
    assert headers_of("github").items() >= {"X-GitHub-Event": TYPE, "X-GitHub-Delivery": ID}.items()
    assert headers_of("fulfil")["X-Webhook-Event"] == TYPE
    assert headers_of("leads")["X-Webhook-Timestamp"] == str(AT)


@every_scheme
def test_id_and_time_go_along_and_the_standard_signature_in_its_scheme_only(scheme: str) -> None:
    headers = headers_of(scheme)
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (ID, str(AT))
    assert ("webhook-signature" in headers) == (scheme == "standard")
    assert {name.lower() for name in headers} == set(SCHEMES[scheme].sends) <= written_headers()
    assert set(SCHEMES[scheme].headers) <= set(SCHEMES[scheme].sends)


def test_no_subscription_may_add_a_header_of_a_scheme() -> None:
    assert [name for name in written_headers() if not is_reserved(name)] == []


@every_scheme
def test_lines_are_whole_header_lines(scheme: str) -> None:
    lines = signer(scheme, [SECRETS[scheme]]).lines(ID.encode(), TYPE.encode(), b"%d" % AT, BODY)
    assert re.fullmatch(rb"([A-Za-z0-9-]+: [!-~][ -~]*\r\n)+", lines)


@every_scheme
def test_what_was_signed_verifies(scheme: str) -> None:
    webhook = verify([OTHERS[scheme], SECRETS[scheme]], headers_of(scheme), BODY, now=AT + 300, scheme=scheme)
    assert webhook.id == (ID if scheme in SIGNED_ID else "")
    assert webhook.timestamp == (AT if scheme in TIMED else None)
    assert webhook.body == BODY


@every_scheme
def test_another_body_or_another_secret_does_not(scheme: str) -> None:
    headers = headers_of(scheme)
    for body in (BODY[:-1], BODY + b"0", BODY.replace(b"10.0", b"11.0"), b""):
        with pytest.raises(SignatureError):
            verify(SECRETS[scheme], headers, body, now=AT, scheme=scheme)
    with pytest.raises(SignatureError):
        verify(OTHERS[scheme], headers, BODY, now=AT, scheme=scheme)


@every_scheme
def test_each_header_is_needed(scheme: str) -> None:
    headers = {name.lower(): value for name, value in headers_of(scheme).items()}
    for name in SCHEMES[scheme].headers:
        for lacking in ({k: v for k, v in headers.items() if k != name}, headers | {name: ""}):
            with pytest.raises(SignatureError, match=f"^{name}: missing"):
                verify(SECRETS[scheme], lacking, BODY, now=AT, scheme=scheme)


@every_scheme
def test_no_part_of_a_signature_will_do(scheme: str) -> None:
    """Short, long, upper-case and wrongly marked signatures; a comparison that stops early takes some of them."""
    name = SCHEMES[scheme].row.signature_header.lower()
    headers = {key.lower(): value for key, value in headers_of(scheme).items()}
    right = headers[name]
    wrong = [right[:-1], right[:-10], right[: len(right) // 2], right + "0", right + "=", " " + right, right + " x"]
    wrong += [right.upper(), right.replace("v1", "v2"), right.replace("sha256=", "sha1="), "sha256=", "v1,", "t=,v1="]
    wrong += [f"v1={right}", f"t={AT}", f"t={AT},v1=", f"t={AT},v1", "sha256=sha256=" + right, right[::-1], "\udc80"]
    listed = {" " + right, right + " x"} if scheme in SIGNED_ID else set()  # a list of one and an unknown
    tried = [value for value in wrong if value != right and value not in listed]
    assert len(tried) >= 14
    for value in tried:
        with pytest.raises(SignatureError):
            verify(SECRETS[scheme], headers | {name: value}, BODY, now=AT, scheme=scheme)


@pytest.mark.parametrize("scheme", TIMED)
@pytest.mark.parametrize("offset", [-301, 301, 86_400 * 365])
def test_a_replay_beyond_the_tolerance_is_refused(scheme: str, offset: int) -> None:
    with pytest.raises(SignatureError, match=r"^timestamp: more than 300 s"):
        verify(SECRETS[scheme], headers_of(scheme), BODY, now=AT + offset, scheme=scheme)


@pytest.mark.parametrize("scheme", sorted({*SCHEMES} - {*TIMED}))
def test_a_scheme_without_a_time_cannot_tell_a_replay(scheme: str) -> None:
    assert verify(SECRETS[scheme], headers_of(scheme), BODY, now=AT + 10**9, scheme=scheme).timestamp is None


@pytest.mark.parametrize("scheme", ["standard", "svix", "stripe", "convoy-advanced"])
def test_another_time_is_not_what_was_signed(scheme: str) -> None:
    headers = headers_of(scheme)
    moved = {name: value.replace(str(AT), str(AT + 60)) for name, value in headers.items()}
    assert moved != headers
    with pytest.raises(SignatureError, match="matches"):
        verify(SECRETS[scheme], moved, BODY, now=AT, scheme=scheme)


def test_the_time_of_leads_is_compared_but_not_signed() -> None:
    moved = headers_of("leads") | {"X-Webhook-Timestamp": str(AT + 1000)}
    assert verify(SECRETS["leads"], moved, BODY, now=AT + 1000, scheme="leads").timestamp == AT + 1000
    with pytest.raises(SignatureError, match=r"^x-webhook-timestamp: must be whole seconds"):
        verify(SECRETS["leads"], moved | {"X-Webhook-Timestamp": "2026-01-01"}, BODY, now=AT, scheme="leads")


@pytest.mark.parametrize("scheme", SEVERAL)
def test_both_secrets_of_a_rotation_sign(scheme: str) -> None:
    headers = headers_of(scheme, [OTHERS[scheme], SECRETS[scheme]])
    for secret in (OTHERS[scheme], SECRETS[scheme]):
        assert verify(secret, headers, BODY, now=AT, scheme=scheme).body == BODY


@pytest.mark.parametrize("scheme", sorted({*SCHEMES} - {*SEVERAL}))
def test_where_there_is_room_for_one_signature_the_newest_secret_signs(scheme: str) -> None:
    assert headers_of(scheme, [OTHERS[scheme], SECRETS[scheme]]) == headers_of(scheme, OTHERS[scheme])


@pytest.mark.parametrize("scheme", ["stripe", "convoy-advanced"])
@pytest.mark.parametrize(
    ("edit", "accepted"),
    [
        (lambda t, v1: f"v1={v1},t={t}", True),
        (lambda t, v1: f"t={t},v0=aa,v1={'0' * 64},v1={v1},v2={v1}", True),
        (lambda t, v1: f"t={t},v0={v1}", False),
        (lambda t, v1: f"t={t},t={t},v1={v1}", False),
        (lambda t, v1: f"t={t}.0,v1={v1}", False),
        (lambda t, v1: f"t=+{t},v1={v1}", False),
        (lambda t, v1: f"t=Infinity,v1={v1}", False),
        (lambda t, v1: f"v1={v1}", False),
        (lambda t, v1: f"t={t}, v1={v1}", False),
        (lambda t, v1: f"t={t}" + ",v0=aa" * 64 + f",v1={v1}", False),
    ],
)
def test_elements_are_found_by_name(scheme: str, edit: Callable[[str, str], str], accepted: bool) -> None:
    name = SCHEMES[scheme].headers[0]
    right = next(value for key, value in headers_of(scheme).items() if key.lower() == name)
    v1 = right.partition("v1=")[2]
    if accepted:
        assert verify(SECRETS[scheme], {name: edit(str(AT), v1)}, BODY, now=AT, scheme=scheme).timestamp == AT
    else:
        with pytest.raises(SignatureError):
            verify(SECRETS[scheme], {name: edit(str(AT), v1)}, BODY, now=AT, scheme=scheme)


def test_more_signatures_than_any_sender_has_are_not_tried() -> None:
    headers = headers_of("standard")
    many = " ".join(["v1,AAAA"] * 64 + [headers["webhook-signature"]])
    with pytest.raises(SignatureError, match="at most 64"):
        verify(SECRETS["standard"], headers | {"webhook-signature": many}, BODY, now=AT)


@every_scheme
def test_a_new_secret_is_one_of_its_scheme_and_random(scheme: str) -> None:
    made = {new_secret(scheme) for _ in range(5)}
    assert len(made) == 5
    assert {check_secret(secret, scheme) for secret in made} == made
    assert {public_key(secret, scheme) for secret in made} == {""}
    assert all(len(secret.removeprefix("whsec_")) >= 44 for secret in made)  # 32 bytes in base64


REFUSED_TEXTS: dict[str, Any] = {
    "B7 empty": "",
    "B7 white space": " " * 20,
    "B7 no text": None,
    "B8 too short": "eleven-char",
    "B8 too long": "x" * 513,
    "B9 line end": "a-good-enough-secret\n",
    "B9 inner control": "a-good-enough\x00secret",
    "B9 delete": "a-good-enough\x7fsecret",
    "B9 trailing space": "a-good-enough-secret ",
    "B9 byte order mark": "\ufeffa-good-enough-secret",
    "B9 line separator": "a-good-enough\u2028secret",
    "B9 lone surrogate": "a-good-enough-\ud800secret",
    "B10 public key": "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
    "B10 signing key": "whsk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
    "B10 Stripe API key": "sk_live_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "B10 PEM": "-----BEGIN PRIVATE KEY-----",
    "B10 JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N",
    "B10 sealed text": "sealed:1:0123456789abcdef:AAAA",
}


@pytest.mark.parametrize("text", REFUSED_TEXTS.values(), ids=REFUSED_TEXTS)
@pytest.mark.parametrize("scheme", TEXT_SCHEMES)
def test_a_text_that_is_no_secret_is_refused_without_being_shown(scheme: str, text: Any) -> None:
    with pytest.raises(SubscriptionError, match=r"^secret: ") as refused:
        check_secret(text, scheme)
    assert not str(text).strip() or str(text).strip() not in str(refused.value)


@pytest.mark.case("B9")
@pytest.mark.parametrize("text", ["my-secret-key", "a secret with spaces", "ключ-от-всех-дверей", "x" * 512])
@pytest.mark.parametrize("scheme", TEXT_SCHEMES)
def test_a_text_secret_is_kept_as_it_stands(scheme: str, text: str) -> None:
    assert check_secret(text, scheme) == text


@every_scheme
def test_nothing_is_signed_without_a_usable_secret(scheme: str) -> None:
    for secrets in ([], [""], [" "], [None], ["\ud800"]):
        with pytest.raises(SubscriptionError, match=r"^secret: "):
            signer(scheme, secrets)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", sorted({*SCHEMES} - {"standard"}))
def test_a_public_key_is_no_key_of_a_keyed_hash(scheme: str) -> None:
    with pytest.raises(SubscriptionError, match=r"^secret: "):
        signer(scheme, [PUBLIC])


def test_nobody_forges_with_a_public_key_what_a_careless_receiver_verifies_by_hash() -> None:
    forged = {"X-Hub-Signature-256": f"sha256={sha256_hex(PUBLIC, BODY.decode())}"}
    with pytest.raises(ArgumentError, match=r"^secret: whpk_ is a public key"):
        verify(PUBLIC, forged, BODY, now=AT, scheme="github")


@pytest.mark.parametrize("name", ["", "Standard", "sha1", None, 1, ["standard"], "standard "])
def test_an_unknown_scheme_is_refused_with_those_there_are(name: Any) -> None:
    with pytest.raises(SubscriptionError, match=r"^scheme: choose one of standard, svix"):
        named(name)


def test_names_are_words_that_the_schema_takes() -> None:
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name) for name in SCHEMES)
    assert all(scheme.name == name for name, scheme in SCHEMES.items())


# Ed25519 keys of Standard Webhooks.

KEYS = CASES["ed25519"][0]
SIGNING, PUBLIC = KEYS["secret"], KEYS["public_key"]
SEED = base64.b64decode(SIGNING.removeprefix("whsk_"))[:32]


def whsk(raw: bytes) -> str:
    return "whsk_" + base64.b64encode(raw).decode()


def test_a_new_key_has_its_public_key() -> None:
    secret = new_secret("standard", "ed25519")
    assert check_secret(secret) == secret
    assert re.fullmatch(r"whpk_[A-Za-z0-9+/]{43}=", public_key(secret))
    assert verify(public_key(secret), headers_of("standard", secret), BODY, now=AT).id == ID
    assert verify(secret, headers_of("standard", secret), BODY, now=AT).id == ID


@pytest.mark.case("B9")
def test_a_seed_alone_and_missing_padding_are_completed() -> None:
    assert {check_secret(text) for text in (SIGNING, SIGNING.rstrip("="), whsk(SEED), whsk(SEED).rstrip("="))} == {
        SIGNING
    }
    assert public_key(SIGNING) == PUBLIC


REFUSED_KEYS = {
    "B10 public key": PUBLIC,
    "B10 empty": "whsk_",
    "B8 31 bytes": whsk(SEED[:31]),
    "B8 33 bytes": whsk(SEED + b"x"),
    "B8 another's public half": whsk(SEED + bytes(32)),
    "B9 spare bits": SIGNING[:-3] + "h==",
    "B9 line end": SIGNING + "\n",
    "B9 URL-safe": SIGNING.replace("+", "-").replace("/", "_"),
}


@pytest.mark.parametrize("text", REFUSED_KEYS.values(), ids=REFUSED_KEYS)
def test_a_bad_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SubscriptionError, match=r"^secret: ") as refused:
        check_secret(text)
    assert text[5:].strip() == "" or text[5:].strip() not in str(refused.value)


def test_only_standard_has_keys_of_that_type() -> None:
    for scheme in sorted({*SCHEMES} - {"standard"}):
        with pytest.raises(SubscriptionError, match=r"^key_type: with scheme .* choose hmac"):
            new_secret(scheme, "ed25519")
    with pytest.raises(SubscriptionError, match=r"^key_type: .*choose hmac or ed25519"):
        new_secret("standard", "rsa")


def test_a_public_key_verifies_and_does_not_sign() -> None:
    with pytest.raises(SubscriptionError, match=r"^secret: "):
        signer("standard", [PUBLIC])


def test_both_kinds_of_key_may_sign_one_message() -> None:
    headers = headers_of("standard", [SIGNING, SECRETS["standard"]])
    assert re.fullmatch(r"v1a,\S{88} v1,\S{44}", headers["webhook-signature"])
    for secret in (PUBLIC, SECRETS["standard"], [OTHERS["standard"], PUBLIC]):
        assert verify(secret, headers, BODY, now=AT).id == ID
    with pytest.raises(SignatureError, match="no signature"):
        verify(OTHERS["standard"], headers, BODY, now=AT)
    with pytest.raises(SignatureError, match="no signature"):
        verify(public_key(new_secret("standard", "ed25519")), headers, BODY, now=AT)


@pytest.mark.parametrize(
    "edit",
    [
        lambda token: token[:-1],
        lambda token: token[:-2],
        lambda token: token + "=",
        lambda token: token[:-3] + ("B" if token[-3] == "A" else "A") + "==",
        lambda token: token.replace("v1a,", "v1,"),
        lambda token: token.replace("v1a,", "v1a,\t"),
        lambda token: "v1a,",
        lambda token: "v1a," + base64.b64encode(bytes(64)).decode(),
        lambda token: token.replace("v1a,", "v1a,v1a,"),
    ],
)
def test_no_part_of_an_ed25519_signature_will_do(edit: Callable[[str], str]) -> None:
    headers = headers_of("standard", SIGNING)
    changed = headers | {"webhook-signature": edit(headers["webhook-signature"])}
    with pytest.raises(SignatureError):
        verify(PUBLIC, changed, BODY, now=AT)
