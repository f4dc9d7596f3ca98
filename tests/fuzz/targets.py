"""What is fuzzed: each target takes any bytes, gives them to one parser, and asserts what must hold whatever they are.

Only the parser's own error may be raised; it is caught here. Anything else that escapes is a finding.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import outbox
from outbox.errors import NotFoundError, PayloadError, SignatureError, SubscriptionError
from outbox.ids import SubscriptionId, parse_id, text_id
from outbox.recording import payload
from outbox.sealing import SealedText
from outbox.secret import Secret
from outbox.signing import schemes
from outbox.signing import verify as signature
from outbox.signing.schemes.declaration import RELAY_HEADERS, declaration_of
from outbox.signing.schemes.hmac_scheme import scheme_of
from outbox.signing.schemes.notely import as_node_writes, as_python_writes
from outbox.subscriptions.addresses import AddressPolicy
from outbox.subscriptions.authentication import authentication_of, stored_authentication, stored_document, tls_of
from outbox.subscriptions.certificates import check_tls
from outbox.subscriptions.checks import check_transformation
from outbox.subscriptions.headers import check_headers
from outbox.subscriptions.url import parse_url
from relay.cli.findings import in_sentences
from relay.config.database_url import conninfo_of, normalised, redacted
from relay.config.egress_proxy import parse_egress_proxy
from relay.http.inspection.certificate import read_certificate
from relay.http.reader import Answer, Lost, ResponseReader
from relay.http.response import retry_after_seconds
from relay.message.authentication import RequestAdditions
from relay.message.oauth2 import Token, Tokens
from relay.message.transformation.budget import TransformationError
from relay.message.transformation.transformation import Transformation
from relay.model.event import EventParts
from relay.model.outcome import Outcome
from relay.operations.endpoint_tests.diagnosis import of_outcome
from relay.operations.endpoint_tests.request_and_response import response_of
from relay.secrets.keyring import Keyring, KeyUnavailableError, new_private_key, private_keys

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
POLICY = AddressPolicy(allow_http=True)
URL = parse_url("https://a.example.com/in")
KEY = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
KEYRING = Keyring([new_private_key()[0]])
SUBSCRIPTION = SubscriptionId.of("sub_01jd3v00000000000000000000")
EXCERPT = 100


def url(data: bytes) -> None:
    """Whatever is accepted has one spelling, and other parsers see the same host in it."""
    try:
        parsed = parse_url(_text(data))
    except SubscriptionError:
        return
    assert parse_url(parsed.text) == parsed
    assert urlsplit(parsed.text).hostname == parsed.host
    assert all("!" <= character <= "~" for character in parsed.text)
    refusal = POLICY.refusal_of_url(parsed)
    assert refusal or not parsed.host.replace(".", "").isdigit() or parsed.host.count(".") == 3


def answer(data: bytes) -> None:
    """An answer does not depend on how its bytes were cut, and one that anything follows is not reusable."""
    result, cut = ResponseReader(EXCERPT).feed(data), None
    pieces, step = ResponseReader(EXCERPT), 1 + len(data) % 7
    for at in range(0, len(data), step):
        cut = pieces.feed(data[at : at + step])
        if cut is not None:
            break
    if result is None or isinstance(cut, Lost):
        assert cut is None or isinstance(result, Lost)
    if isinstance(result, Answer):
        assert isinstance(cut, Answer)
        assert (cut.status, cut.head) == (result.status, result.head)
        assert 200 <= result.status <= 599
        assert cut.reusable or not result.reusable
        followed = ResponseReader(EXCERPT).feed(data + b"H")
        assert isinstance(followed, Answer)
        assert not followed.reusable


def retry_after(data: bytes) -> None:
    """What a receiver asks for is within a day, or nothing."""
    head = b"HTTP/1.1 503 X\r\nretry-after: " + data + b"\r\n\r\n"
    seconds = retry_after_seconds(503, head)
    assert seconds is None or 0 <= seconds <= 86_400


def verify(data: bytes) -> None:
    """Nobody forges a signature of any scheme, and nothing but SignatureError tells of it."""
    lines, _, body = data.partition(b"\n\n")
    headers = [tuple(line.partition(b":")[::2]) for line in lines.split(b"\n")]
    for scheme in schemes.SCHEMES:
        for given in (headers, [(_text(name), _text(value)) for name, value in headers]):
            try:
                outbox.verify(SECRET, given, body, now=1_700_000_000, scheme=scheme)
            except SignatureError:
                continue
            raise AssertionError(f"a forged signature was accepted by {scheme}")


def declaration(data: bytes) -> None:
    """What may be declared writes whole header lines of its own names, which it then verifies."""
    with suppress(ValueError, RecursionError, SubscriptionError):
        scheme = scheme_of(declaration_of("acme", json.loads(data)))
        secret = scheme.keys.makers["hmac"]()
        lines = scheme.sign([secret])(b"evt_1", b"a.b", b"1700000000", data).decode("ascii")
        headers = [line.split(": ") for line in lines.removesuffix("\r\n").split("\r\n")]
        assert [name.lower() for name, *_ in headers] == list(scheme.sends)
        assert not RELAY_HEADERS.intersection(scheme.sends)
        received = {name.lower(): ": ".join(value) for name, *value in headers}
        assert scheme.verify([secret], {name: received[name] for name in scheme.headers}, data).timestamp in (
            None,
            1_700_000_000,
        )


def rewritten(data: bytes) -> None:
    """What a receiver writes anew of a body is the same the second time, and says the same."""
    for write in (as_python_writes, as_node_writes):
        once = write(data)
        assert write(once) == once
    with suppress(ValueError, RecursionError):
        parsed = json.loads(data)
        assert json.dumps(json.loads(as_python_writes(data))) == json.dumps(parsed)


def sealed(data: bytes) -> None:
    """What was not sealed to a key that is held opens for nobody; what lies in clear passes."""
    text = _text(data)
    try:
        opened = KEYRING.open(Secret(text), bytes(16), "signing")
    except KeyUnavailableError as error:
        assert SealedText.parse(text) is None or text not in str(error)
        return
    assert opened.reveal() == text
    assert not text.startswith("sealed:")


def keys(data: bytes) -> None:
    """Private keys are read or refused without being repeated."""
    text = _text(data)
    try:
        found = private_keys(text)
    except ValueError as error:
        assert len(text) < 12 or text not in str(error)
        return
    Keyring(found)


def headers(data: bytes) -> None:
    """No header that is accepted can end its line or stand twice."""
    with suppress(SubscriptionError):
        accepted = check_headers(stored_document("headers", _text(data)))
        lines = RequestAdditions("https://example.com/", {"headers": _text(data)}).lines
        assert lines.count(b"\n") == lines.count(b"\r\n") == len(accepted)
        names = [line.partition(b":")[0].lower() for line in lines.split(b"\r\n")[:-1]]
        assert len(set(names)) == len(names)


def authentication(data: bytes) -> None:
    """What is accepted is stored and read back the same, shows nothing, and gives whole header lines."""
    with suppress(SubscriptionError):
        given = authentication_of(stored_document("authentication", _text(data)))
        stored = stored_authentication(given)
        assert authentication_of(json.loads(stored)) == given
        assert repr(given).endswith("(***)")
        lines = RequestAdditions("https://example.com/", {"authentication": stored}).lines
        assert lines.count(b"\n") == lines.count(b"\r\n") <= 1


def certificates(data: bytes) -> None:
    """PEM is accepted block by block, or refused by name; so are the bytes of one certificate."""
    block = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(data).decode()}\n-----END CERTIFICATE-----\n"
    for text in (_text(data), block):
        with suppress(SubscriptionError):
            check_tls(tls_of({"ca": text}))
        with suppress(SubscriptionError):
            check_tls(tls_of({"client_certificate": text, "client_key": KEY}))
    with suppress(SubscriptionError):
        RequestAdditions("https://example.com/", {"tls": json.dumps({"ca": data.decode("latin-1")})})


def token(data: bytes) -> None:
    """What a token endpoint answers is a token that fits a header line, or an outcome with a reason."""
    credentials = outbox.OAuth2ClientCredentials("https://example.com/token", "id", "s3cr3tword")
    said = Outcome("delivered", 200, 1, excerpt=data)
    read = Tokens(credentials, None)._read(said, 0.0)  # noqa: SLF001 - the parser behind a request
    if isinstance(read, Token):
        assert read.line.count(b"\r\n") == 1
        assert read.line.count(b"\n") == 1
        assert 0 <= read.use_until <= 10**9
    else:
        assert read.error
        assert "s3cr3tword" not in read.error


def egress_proxy(data: bytes) -> None:
    """A proxy's address is read or refused; neither way shows a password."""
    text = "http://u:s3cr3tword@" + _text(data)
    try:
        proxy = parse_egress_proxy(text)
    except ValueError as error:
        assert "s3cr3tword" not in str(error)
        return
    assert "s3cr3tword" not in repr(proxy)
    assert 0 < proxy.port < 65536


def raw_json(data: bytes) -> None:
    """RawJSON that is accepted is JSON, and is kept as written."""
    text = _text(data)
    try:
        encoded = payload.encode(outbox.RawJSON(text), 4096)
    except PayloadError:
        return
    assert encoded == text
    json.loads(encoded)
    encoded.encode()


def identity(data: bytes) -> None:
    """An id that is accepted has one UUID, and that UUID's text means the same."""
    text = _text(data)
    try:
        value = parse_id("evt", text)
    except NotFoundError:
        return
    assert parse_id("evt", text_id("evt", value)) == value


def secret(data: bytes) -> None:
    """A secret that is accepted has one canonical spelling; an error never holds it."""
    text = _text(data)
    try:
        canonical = signature.check_secret(text)
    except SubscriptionError as error:
        assert len(text) < 12 or text not in str(error)
        return
    assert signature.check_secret(canonical) == canonical
    assert signature.sign(canonical, "evt_1", 1, b"").startswith(("v1,", "v1a,"))


def database_url(data: bytes) -> None:
    """A database address that is accepted can be used, and its password is never shown."""
    text = "postgresql://u:s3cr3tword@" + _text(data)
    try:
        address = normalised(text)
        conninfo_of(address)
    except ValueError as error:
        assert "s3cr3tword" not in str(error)
        return
    assert "s3cr3tword" not in redacted(address)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def server_certificate(data: bytes) -> None:
    """What a server shows in its handshake is told, or is nothing."""
    found = read_certificate(data)
    if found is not None:
        assert len(found.names) <= 100
        assert found.is_for(URL.host) in (True, False)
        assert f"{found.not_before:%Y-%m-%d}{found.not_after:%Y-%m-%d}"


def diagnosis(data: bytes) -> None:
    """Every answer has words and a document, and no cookie in it."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1")
    for kind, status in (("http_3xx", 302), ("http_4xx", 400), ("protocol", None)):
        said = Outcome(kind, status, 1, headers=lines, excerpt=body)  # type: ignore[arg-type]
        assert in_sentences(of_outcome(SUBSCRIPTION, URL, said, 15))
        shown = response_of(said)
        assert shown is None or all(
            value.endswith("***") for name, value in shown.headers if name.lower() == "set-cookie"
        )


def expression(data: bytes) -> None:
    """An expression before the first NUL, a payload after it: what is taken ends in JSON or one error, each time."""
    text, _, payload_ = data.partition(b"\0")
    try:
        check_transformation("transformation", _text(text))
    except SubscriptionError as error:
        assert str(error).startswith("transformation: ")
        return
    ends = []
    for _ in range(2):
        event = EventParts(b"evt_1", b"a.b", "", None, 0, payload_)
        try:
            ends.append(Transformation(_text(text)).of(event).payload if _text(text) else b"0")
        except TransformationError as error:
            ends.append(str(error).encode())
        else:
            json.loads(ends[-1])
    assert ends[0] == ends[1]


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(url, answer, retry_after, verify, declaration, rewritten, raw_json, identity, secret, database_url),
        *(sealed, keys, headers, authentication, certificates, token, egress_proxy),
        *(server_certificate, diagnosis, expression),
    )
}
