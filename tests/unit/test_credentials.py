"""Own headers, authentication and TLS of a subscription: what is refused, and that no refusal shows a secret."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
import ssl
import string
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import example, given
from hypothesis import strategies as st

import outbox
from outbox.errors import SubscriptionError
from outbox.signing.schemes import written_headers
from outbox.subscriptions.authentication import (
    TLS,
    BasicAuth,
    BearerToken,
    OAuth2ClientCredentials,
    authentication_of,
    tls_of,
)
from outbox.subscriptions.certificates import check_tls
from outbox.subscriptions.fields import check_fields
from outbox.subscriptions.headers import check_headers, is_reserved
from relay.message.authentication import RequestAdditions

CANARY = "canary-4711"
URL = "https://hooks.example.com/in"


def refused(make, *arguments, **fields) -> str:
    """Return the message of the refusal, which names a field and quotes nothing that is secret."""
    with pytest.raises(SubscriptionError) as caught:
        make(*arguments, **fields)
    message = str(caught.value)
    assert CANARY not in message
    assert caught.value.__cause__ is None
    assert message.partition(":")[0].partition(".")[0] in ("headers", "authentication", "tls")
    return message


class TestHeaders:
    @pytest.mark.case("B20")
    @pytest.mark.parametrize(
        "name", ["", "X A", "X\r\nY", "X\n", "X\0", "X:Y", "Ä", "X\xa0", "X\tY", "(x)", 7, None, b"X"]
    )
    def test_a_name_is_a_token(self, name):
        assert "is not a header name" in refused(check_headers, {name: CANARY})

    @pytest.mark.case("B21")
    @pytest.mark.parametrize(
        "value",
        ["a\r\nB: c", "a\nb", "a\rb", "a\x00b", "€", "é", " a", "a ", "\ta", "a\t", "a\x7f", "\x1b[0m", 7, None],
    )
    def test_a_value_is_visible_ascii(self, value):
        value = value + CANARY + value if isinstance(value, str) else value
        assert "the value of X-Key" in refused(check_headers, {"X-Key": value})

    @pytest.mark.case("B21")
    @pytest.mark.parametrize("value", ["", "a", "a b", "a\tb", string.punctuation, "~!"])
    def test_such_values_pass(self, value):
        assert check_headers({"X-Key": value}) == {"X-Key": value}

    @pytest.mark.case("B21")
    @given(st.text())
    @example("a\u2028b")
    @example("a\x85b")
    def test_whatever_passes_is_one_line(self, value):
        try:
            check_headers({"X-Key": value})
        except SubscriptionError:
            return
        assert f"X-Key: {value}\r\n".encode("ascii").splitlines() == [f"X-Key: {value}".encode("ascii")]

    @pytest.mark.case("B22")
    @pytest.mark.parametrize(
        "name",
        ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "TE", "Trailer",
         "Expect",
         "Proxy-Authorization", "Proxy-Connection", "Content-Type", "Content-Encoding", "Date", "User_Agent",
         "webhook-id", "Webhook-Signature", "svix-id", "X-Hub-Signature-256", "X-GitHub-Event", "X-GitHub-Delivery",
         "Stripe-Signature", "X-Convoy-Signature", "X-Webhook-Signature", "X-Webhook-Event", "X-Webhook-Timestamp"],
    )  # fmt: skip
    def test_reserved_names_are_refused_in_any_spelling(self, name):
        for spelling in (name, name.lower(), name.upper(), name.replace("-", "_")):
            assert "use another name" in refused(check_headers, {spelling: CANARY})

    @pytest.mark.case("B22")
    @pytest.mark.parametrize("name", sorted(written_headers()))
    def test_what_any_signature_writes_is_reserved(self, name):
        assert "use another name" in refused(check_headers, {name.title(): CANARY})

    @pytest.mark.case("B23")
    def test_names_that_differ_only_in_case_are_one(self):
        assert "X-KEY is given twice" in refused(check_headers, {"X-Key": CANARY, "X-KEY": CANARY})
        assert "X-Key is given twice" in refused(check_headers, [("X-Key", CANARY), ("X-Key", CANARY)])

    @pytest.mark.case("B23")
    def test_there_are_limits(self):
        assert "200 headers" in refused(check_headers, {f"X-{number}": CANARY for number in range(200)})
        assert "the limit is 8192" in refused(check_headers, {"X-Key": CANARY * 100_000})
        assert "the limit is 8192" in refused(check_headers, {"X" * 9000: CANARY})
        assert len(check_headers({f"X-{number}": "v" for number in range(50)})) == 50

    @pytest.mark.case("B24")
    def test_sensitive_names_are_allowed(self):
        headers = {"Cookie": "a=b", "Authorization": "Token x", "X-Forwarded-For": "192.0.2.1"}
        assert check_headers(headers) == headers

    @pytest.mark.case("B26")
    def test_the_encoding_is_the_relays_business(self):
        assert "Accept-Encoding is set by the relay" in refused(check_headers, {"Accept-Encoding": "br, gzip"})

    @pytest.mark.case("A26")
    def test_an_event_has_no_headers_of_its_own(self):
        """Headers come from a subscription only, where these rules hold."""
        for function in (outbox.record, outbox.arecord, outbox.Outbox.record):
            assert "headers" not in inspect.signature(function).parameters
        assert "headers" in inspect.signature(outbox.subscribe).parameters

    @pytest.mark.parametrize("value", ["X: y", b"X", 7, [1], ["ab"], [("a",)], {"a"}])
    def test_they_are_a_mapping_or_pairs(self, value):
        assert refused(check_headers, value).startswith("headers: give a mapping")


class TestAuthentication:
    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"username": "a:b"}, "username"),
            ({"username": "a\nb"}, "username"),
            ({"password": CANARY + "\r\nX: y"}, "password"),
            ({"password": CANARY + "\0"}, "password"),
            ({"password": CANARY + "\ud800"}, "password"),
            ({"password": CANARY * 1000}, "password"),
            ({"password": None}, "password"),
            ({"username": "", "password": ""}, "username"),
        ],
    )
    def test_basic_is_checked(self, fields, named):
        assert refused(BasicAuth, **{"username": "u", "password": "p", **fields}).startswith(f"authentication.{named}:")

    @pytest.mark.parametrize("token", ["", "a b" + CANARY, CANARY + "\r\n", "é", 7, CANARY * 1000])
    def test_bearer_is_checked(self, token):
        assert refused(BearerToken, token).startswith("authentication.token:")

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"token_url": "ftp://auth.example.com/"}, "token_url"),
            ({"token_url": f"https://user:{CANARY}@auth.example.com/"}, "token_url"),
            ({"token_url": None}, "token_url"),
            ({"client_id": ""}, "client_id"),
            ({"client_secret": CANARY + "\n"}, "client_secret"),
            ({"scope": "a\nb"}, "scope"),
            ({"audience": 7}, "audience"),
            ({"client_authentication": "none"}, "client_authentication"),
        ],
    )
    def test_oauth2_is_checked(self, fields, named):
        whole = {"token_url": "https://auth.example.com/t", "client_id": "i", "client_secret": CANARY, **fields}
        assert refused(OAuth2ClientCredentials, **whole).startswith(f"authentication.{named}:")

    @pytest.mark.parametrize(
        "document",
        [None, [], "basic", {}, {"type": "digest"}, {"type": ["basic"]}, {"type": "basic", "username": CANARY},
         {"type": "bearer", "token": "x", "verify": False}, {"type": "oauth2", "client_secret": CANARY}],
    )  # fmt: skip
    def test_a_document_is_of_one_type_and_whole(self, document):
        assert refused(authentication_of, document).startswith("authentication:")

    def test_a_header_and_an_authentication_exclude_each_other(self):
        from outbox.subscriptions.stored_credentials import check_together

        given = check_fields(headers={"AUTHORIZATION": CANARY}, authentication=BearerToken(CANARY))
        assert "give one of the two" in refused(check_together, URL, {}, given)
        given = check_fields(headers={"authorization": CANARY})
        assert "give one of the two" in refused(check_together, URL, {"authentication": "basic"}, given)
        given = check_fields(authentication=BasicAuth("u", CANARY))
        assert "give one of the two" in refused(check_together, URL, {"headers": "X, Authorization"}, given)
        check_together(URL, {"headers": "Authorization"}, check_fields(headers=None, authentication=BearerToken("t")))

    def test_what_was_given_is_seen_again(self):
        values = {
            "basic": BasicAuth("u", "p"),
            "bearer": BearerToken("t"),
            "oauth2 https://auth.example.com:8443": OAuth2ClientCredentials(
                "https://auth.example.com:8443/t", "i", "s"
            ),
        }
        for hint, value in values.items():
            text, shown = check_fields(authentication=value)["authentication"]
            assert shown == hint
            assert authentication_of(json.loads(text)) == value

    @pytest.mark.parametrize("value", ["basic", 7, ("u", "p"), TLS])
    def test_something_else_is_refused(self, value):
        assert refused(check_fields, authentication=value).startswith("authentication: ")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def leaf(authority) -> trustme.LeafCert:
    return authority.issue_cert("client.example.com", common_name="client 7")


def chain(leaf: trustme.LeafCert) -> str:
    return "".join(blob.bytes().decode() for blob in leaf.cert_chain_pems)


def key(leaf: trustme.LeafCert) -> str:
    return leaf.private_key_pem.bytes().decode()


def pem(private_key, locked: bool = False) -> str:
    lock = BestAvailableEncryption(CANARY.encode()) if locked else NoEncryption()
    return private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock).decode()


class TestTLS:
    def test_what_may_be_shown(self, authority, leaf):
        shown = check_tls(TLS(chain(leaf), key(leaf), authority.cert_pem.bytes().decode()))
        assert shown == "client certificate CN=client 7, until 3000-01-01; own CA"
        assert check_tls(TLS(ca=authority.cert_pem.bytes().decode())) == "own CA"

    def test_a_name_shows_no_control_characters(self, authority):
        odd = authority.issue_cert("client.example.com", common_name="a\x1b[31m\u202eb")
        assert check_tls(TLS(chain(odd), key(odd))).startswith("client certificate CN=a?[31m?b, until")

    @pytest.mark.case("B37")
    def test_verification_cannot_be_switched_off(self):
        assert "no field 'verify'" in refused(tls_of, {"verify": False})
        assert "give a client certificate" in refused(tls_of, {})
        with pytest.raises(TypeError):
            TLS(verify=False)

    @pytest.mark.case("B37")
    def test_an_expired_certificate_is_refused(self, authority):
        yesterday = datetime.now(UTC) - timedelta(days=1)
        old = authority.issue_cert("client.example.com", not_after=yesterday)
        assert f"expired on {yesterday:%Y-%m-%d}" in refused(check_fields, tls=TLS(chain(old), key(old)))
        before = datetime(1999, 1, 1, tzinfo=UTC)
        assert "is valid from" in refused(check_tls, TLS(chain(old), key(old)), before)

    @pytest.mark.case("B37")
    def test_an_authority_that_has_ended_is_refused(self, authority):
        own = TLS(ca=authority.cert_pem.bytes().decode())
        assert refused(check_tls, own, datetime(3001, 1, 1, tzinfo=UTC)).startswith("tls.ca:")

    @pytest.mark.case("B37")
    @pytest.mark.parametrize(
        "text", ["/etc/ssl/ca.pem", "-----BEGIN CERTIFICATE-----", CANARY, "é", 7, None, "x" * 100_000]
    )
    def test_a_path_or_half_a_block_is_no_pem(self, leaf, text):
        assert refused(TLS, ca=text).startswith("tls.ca:")
        assert refused(TLS, chain(leaf), text).startswith("tls.client_key:")
        assert refused(TLS, text, key(leaf)).startswith("tls.client_certificate:")

    def test_the_two_halves_come_together(self, leaf):
        assert refused(TLS, client_certificate=chain(leaf)).startswith("tls.client_key:")
        assert refused(TLS, client_key=key(leaf)).startswith("tls.client_certificate:")

    def test_one_file_may_hold_both(self, leaf):
        both = f"Bag Attributes\n{key(leaf)}\nsubject=CN\n{chain(leaf)}"
        own = TLS(both, both)
        assert "PRIVATE KEY" not in own.client_certificate
        assert "CERTIFICATE" not in own.client_key
        assert check_tls(own) == check_tls(TLS(chain(leaf), key(leaf)))

    def test_a_block_of_nonsense_is_no_certificate(self, leaf):
        nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        assert refused(check_tls, TLS(nonsense, key(leaf))).startswith("tls.client_certificate:")
        assert refused(check_tls, TLS(ca=nonsense)).startswith("tls.ca:")

    @pytest.mark.parametrize(
        ("part", "other"),
        [(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x59"), (b"\x0c\x08client 7", b"\x13\x08client_\xff"),
         (b"\x0c\x08client 7", b"\x03\x08client 7")],
        ids=["a version that there is not", "a name of wrong characters", "a name of bits"],
    )  # fmt: skip
    def test_a_certificate_whose_bytes_are_not_right_is_refused_by_name(self, authority, part, other):
        good = authority.issue_cert("client.example.com", common_name="client 7")
        der = ssl.PEM_cert_to_DER_cert(good.cert_chain_pems[0].bytes().decode())
        assert part in der
        bad = ssl.DER_cert_to_PEM_cert(der.replace(part, other))
        assert refused(check_tls, TLS(bad, key(good))).startswith("tls.client_certificate: holds a block that is no")
        assert refused(check_tls, TLS(ca=bad)).startswith("tls.ca: holds a block that is no")

    def test_the_key_must_be_the_certificates(self, authority, leaf):
        other = authority.issue_cert("other.example.com")
        assert "is not the key" in refused(check_tls, TLS(chain(leaf), key(other)))

    def test_a_key_under_a_passphrase_is_refused(self, leaf):
        locked = pem(load_pem_private_key(key(leaf).encode(), None), locked=True)
        assert "without" in refused(TLS, chain(leaf), locked)

    def test_a_key_that_openssl_would_refuse_is_refused_here(self, leaf):
        small = rsa.generate_private_key(65537, 1024)
        assert "1024 bits" in refused(check_tls, TLS(chain(leaf), pem(small)))
        assert "no kind that TLS uses" in refused(check_tls, TLS(chain(leaf), pem(x25519.X25519PrivateKey.generate())))
        nonsense = pem(ec.generate_private_key(ec.SECP256R1())).replace("M", "N")
        assert refused(check_tls, TLS(chain(leaf), nonsense)).startswith("tls.client_key:")

    def test_it_is_not_for_plain_http(self, authority):
        from outbox.subscriptions.stored_credentials import check_together

        given = check_fields(tls=TLS(ca=authority.cert_pem.bytes().decode()))
        assert "http://" in refused(check_together, "http://hooks.example.com/", {}, given)
        assert "http://" in refused(check_together, "http://hooks.example.com/", {"tls": "own CA"}, {})

    @pytest.mark.parametrize("value", ["own", 7, BasicAuth("u", "p")])
    def test_something_else_is_refused(self, value):
        assert refused(check_fields, tls=value).startswith("tls: ")


class TestSecrecy:
    @pytest.mark.parametrize(
        "value",
        [outbox.BasicAuth(CANARY, CANARY), outbox.BearerToken(CANARY),
         outbox.OAuth2ClientCredentials("https://auth.example.com/", CANARY, CANARY, CANARY, CANARY)],
        ids=lambda value: type(value).__name__,
    )  # fmt: skip
    def test_a_repr_shows_the_type_only(self, value):
        for text in (repr(value), str(value), f"{value}", repr([value]), repr({"a": value})):
            assert CANARY not in text
            assert type(value).__name__ in text
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.token = ""

    def test_a_repr_of_tls_shows_no_pem(self, authority, leaf):
        assert repr(TLS(chain(leaf), key(leaf))) == "TLS(***)"
        with pytest.raises(TypeError, match=r"^TLS: holds a secret and cannot be pickled"):
            pickle.dumps(TLS(chain(leaf), key(leaf)))
        assert copy.deepcopy(TLS(chain(leaf), key(leaf))) == TLS(chain(leaf), key(leaf))


class TestReadAgain:
    """What a relay finds in a row that was written by hand."""

    @pytest.mark.case("B20", "B21", "B22")
    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            ("headers", ""),
            ("headers", "null"),
            ("headers", "[" * 100_000),
            ("headers", json.dumps({"X-Key": f"{CANARY}\r\nX-Injected: 1"})),
            ("headers", json.dumps({f"X-{CANARY}\r\nY": "v"}).replace(CANARY, "k")),
            ("headers", json.dumps({"Content-Length": "0"})),
            ("headers", json.dumps({"X-Key": "€"})),
            ("authentication", "{"),
            ("authentication", "null"),
            ("authentication", json.dumps({"type": "bearer", "token": f"{CANARY}\r\nX: 1"})),
            ("tls", json.dumps({"verify": False})),
            ("tls", "9"),
            ("tls", json.dumps({"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"})),
        ],
    )
    def test_a_stored_bad_value_is_a_subscription_error(self, kind, text):
        assert refused(RequestAdditions, URL, {kind: text}).startswith(kind)

    def test_a_stored_header_beside_an_authentication(self):
        opened = {
            "headers": json.dumps({"authorization": CANARY}),
            "authentication": json.dumps({"type": "basic", "username": "u", "password": CANARY}),
        }
        assert refused(RequestAdditions, URL, opened).startswith("headers")

    def test_a_stored_key_under_a_passphrase_asks_nobody(self, leaf):
        """OpenSSL would ask the terminal, and the relay would stand still."""
        lines = key(leaf).splitlines()
        text = "\n".join([lines[0], "A" + lines[1][1:], *lines[2:]])
        opened = {"tls": json.dumps({"client_certificate": chain(leaf), "client_key": text})}
        assert refused(RequestAdditions, URL, opened).startswith("tls: OpenSSL refuses it")

    def test_is_reserved_says_no_to_ordinary_names(self):
        assert not any(map(is_reserved, ("X-Api-Key", "Authorization", "Cookie", "Accept", "Webhooks", "X-Date")))
