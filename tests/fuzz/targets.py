"""What is fuzzed: each target takes any bytes, gives them to one parser, and asserts what must hold whatever they are.

Only the parser's own error may be raised; it is caught here. Anything else that escapes is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import urlsplit

import outbox
from outbox import payload, signature
from outbox.errors import NotFoundError, PayloadError, SignatureError, SubscriptionError
from outbox.ids import parse_id, text_id
from outbox.schemes import SCHEMES
from outbox.url import parse_url
from relay.database_url import conninfo_of, normalised, shown
from relay.http.addresses import AddressPolicy
from relay.http.reader import Answer, Lost, ResponseReader
from relay.http.response import retry_after_seconds

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
POLICY = AddressPolicy(allow_http=True)
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
    """Nobody forges a signature, and nothing but SignatureError tells of it."""
    lines, _, body = data.partition(b"\n\n")
    headers = [tuple(line.partition(b":")[::2]) for line in lines.split(b"\n")]
    for given in (headers, [(_text(name), _text(value)) for name, value in headers]):
        for scheme in SCHEMES:
            try:
                outbox.verify(SECRET, given, body, now=1_700_000_000, scheme=scheme)
            except SignatureError:
                continue
            raise AssertionError(f"a forged signature was accepted by {scheme}")


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
    assert "s3cr3tword" not in shown(address)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (url, answer, retry_after, verify, raw_json, identity, secret, database_url)
}
