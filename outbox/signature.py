"""Standard Webhooks 1.0 signatures (v1, HMAC-SHA256): make a secret, sign what is sent, verify what arrived.

What is signed is the bytes `{id}.{timestamp}.{body}`. An id therefore never holds a dot, or two messages could sign
alike. "Message" is that standard's word for what one request carries.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets as randomness
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outbox.errors import SignatureError, SubscriptionError

__all__ = ["Signer", "Webhook", "check_secret", "new_secret", "sign", "signed_headers", "verify"]

_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)
_MESSAGE_ID = re.compile(r"[!-\-/-~]{1,256}")  # visible ASCII without the dot
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")

Headers = Mapping[Any, Any] | Iterable[tuple[Any, Any]]


def new_secret() -> str:
    """Return a new signing secret: `whsec_` and the base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(randomness.token_bytes(32)).decode()


def check_secret(text: object) -> str:
    """Return a secret of the user's own in its canonical spelling, `whsec_` + padded base64.

    The prefix and the padding may be missing. Raises SubscriptionError for anything else that is not 24 to 64
    bytes in standard base64; the message never holds the secret.
    """
    key = _key(text)
    if len(key) not in _SECRET_BYTES:
        raise SubscriptionError(f"secret: {len(key)} bytes long; use 24 to 64 random bytes in base64")
    canonical = base64.b64encode(key).decode()
    if canonical.rstrip("=") != _without_prefix(str(text)).rstrip("="):
        raise SubscriptionError("secret: its last base64 character has spare bits set; encode the bytes again")
    return _PREFIX + canonical


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature `v1,…` of one message; `timestamp` is whole seconds since 1970 UTC.

    Raises SubscriptionError for a bad secret and ValueError for a bad id or timestamp.
    """
    return Signer([secret]).header(*_checked(message_id, timestamp), body).decode()


def signed_headers(
    secrets: str | Sequence[str], message_id: str, body: bytes, *, timestamp: int | None = None
) -> dict[str, str]:
    """Return the three headers of a signed message, one signature for each secret; `timestamp` is now by default.

    Raises as `sign()` does.
    """
    at = int(time.time()) if timestamp is None else timestamp
    identity, seconds = _checked(message_id, at)
    signature = Signer(_listed(secrets)).header(identity, seconds, body).decode()
    return dict(zip(_HEADERS, (message_id, str(at), signature), strict=True))


class Signer:
    """Signs many messages with the same secrets: the keyed hash is prepared once and copied for each message.

    Raises SubscriptionError when a secret is unusable or there is none.
    """

    __slots__ = ("_keyed",)

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            raise SubscriptionError("secret: there is none; a message is never sent unsigned")
        self._keyed = [hmac.new(_key(secret), digestmod=hashlib.sha256) for secret in secrets]

    def header(self, message_id: bytes, timestamp: bytes, body: bytes) -> bytes:
        """Return the value of `webhook-signature`: `v1,…` for each secret, separated by spaces."""
        signed = b"%b.%b.%b" % (message_id, timestamp, body)
        return b" ".join([_signature(keyed, signed) for keyed in self._keyed])

    def lines(self, message_id: bytes, _type: bytes, timestamp: bytes, body: bytes) -> bytes:
        """Return the header lines of one message, each with its CRLF."""
        signature = self.header(message_id, timestamp, body)
        return b"webhook-id: %b\r\nwebhook-timestamp: %b\r\nwebhook-signature: %b\r\n" % (
            message_id,
            timestamp,
            signature,
        )

    def __repr__(self) -> str:
        return f"<Signer with {len(self._keyed)} secrets>"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A message whose signature was verified: id, time of the attempt (seconds since 1970 UTC) and body."""

    id: str
    timestamp: int
    body: bytes

    def json(self) -> Any:
        """Return the body as parsed JSON; raises ValueError when it is not JSON."""
        return json.loads(self.body)


def verify(
    secrets: str | Sequence[str],
    headers: Headers,
    body: bytes,
    *,
    tolerance_seconds: float = 300,
    now: float | None = None,
) -> Webhook:
    """Return the verified message, or raise SignatureError and nothing else.

    `headers` is a mapping or pairs, str or bytes, in any case. `body` is the raw request body. Any one
    signature by any one secret is enough, so that secrets can be rotated. The message's timestamp may differ
    from `now` (seconds since 1970; the machine's clock by default) by `tolerance_seconds` either way.
    """
    signer = _signer_of_receiver(secrets)
    message_id, timestamp, signatures = _standard_headers(headers)
    if not isinstance(body, bytes | bytearray | memoryview):
        raise SignatureError("body: pass the raw bytes of the request, not decoded text or parsed JSON")
    if not _MESSAGE_ID.fullmatch(message_id):
        raise SignatureError("webhook-id: must be visible ASCII without a dot")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureError("webhook-timestamp: must be whole seconds since 1970")
    if not abs((time.time() if now is None else now) - int(timestamp)) <= tolerance_seconds:  # so that NaN fails
        raise SignatureError(f"webhook-timestamp: more than {tolerance_seconds:g} s away from now; check both clocks")
    expected = signer.header(message_id.encode(), timestamp.encode(), bytes(body)).split(b" ")
    if not _any_matches(expected, signatures.encode("ascii", "replace").split(b" ")):
        raise SignatureError("webhook-signature: no signature in it matches the body and any secret")
    return Webhook(message_id, int(timestamp), bytes(body))


def _any_matches(expected: Sequence[bytes], given: Sequence[bytes]) -> bool:
    # Whole elements are compared as text: canonical base64 has one spelling, so there is nothing lenient to decode.
    matches = [hmac.compare_digest(ours, theirs) for theirs in given for ours in expected]
    return any(matches)


def _signer_of_receiver(secrets: str | Sequence[str]) -> Signer:
    try:
        return Signer(_listed(secrets))
    except (SubscriptionError, TypeError) as error:
        raise SignatureError(str(error)) from None


def _standard_headers(headers: Headers) -> list[str]:
    """Return the values of the three headers, in their order."""
    found: dict[str, str] = {}
    for name, value in _pairs(headers):
        key = _text(name).lower()
        if key in _HEADERS and found.setdefault(key, _text(value)) != _text(value):
            raise SignatureError(f"{key}: given twice with different values")
    for name in _HEADERS:
        if not found.get(name):
            raise SignatureError(f"{name}: missing")
    return [found[name] for name in _HEADERS]


def _pairs(headers: Headers) -> list[tuple[Any, Any]]:
    try:
        pairs = headers.items() if hasattr(headers, "items") else headers
        return [(name, value) for name, value in pairs]
    except (TypeError, ValueError):
        raise SignatureError("headers: pass a mapping or pairs of name and value") from None


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _listed(secrets: str | Sequence[str]) -> Sequence[str]:
    return [secrets] if isinstance(secrets, str) else list(secrets)


def _checked(message_id: str, timestamp: int) -> tuple[bytes, bytes]:
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError("message_id: must be 1 to 256 characters of visible ASCII without a dot")
    if type(timestamp) is not int or not _TIMESTAMP.fullmatch(str(timestamp)):
        raise ValueError("timestamp: must be an int, whole seconds since 1970 UTC")
    return message_id.encode(), b"%d" % timestamp


def _signature(keyed: hmac.HMAC, signed: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(signed)
    return b"v1," + binascii.b2a_base64(mac.digest(), newline=False)


def _without_prefix(text: str) -> str:
    return text.removeprefix(_PREFIX)


def _key(secret: object) -> bytes:
    """Return the bytes of a secret, written with or without `whsec_` and padding; errors do not hold it."""
    if not isinstance(secret, str):
        raise SubscriptionError("secret: must be text, whsec_ and base64")
    encoded = _without_prefix(secret)
    if not encoded:
        raise SubscriptionError("secret: empty; anyone could forge its signatures")
    unpadded = encoded.rstrip("=")
    padded = unpadded + "=" * (-len(unpadded) % 4)
    if not _BASE64.fullmatch(encoded) or encoded not in (unpadded, padded) or len(unpadded) % 4 == 1:
        raise SubscriptionError("secret: must be whsec_ and standard base64, without spaces or line ends")
    return base64.b64decode(padded)
