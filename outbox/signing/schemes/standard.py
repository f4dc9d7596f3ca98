"""Standard Webhooks 1.0, and Svix's names for the same.

`standard`, https://github.com/standard-webhooks/standard-webhooks: HMAC-SHA256 (v1, `whsec_`) and Ed25519 (v1a,
`whsk_`, `whpk_`) over the bytes `{id}.{timestamp}.{body}`, one signature for each live secret of either kind. An id
therefore never holds a dot, or two messages could sign alike. "Message" is that standard's word for what one request
carries.

`svix`: the same v1 under svix-id, svix-timestamp and svix-signature.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from outbox.errors import SignatureError, SubscriptionError
from outbox.signing.schemes import ed25519
from outbox.signing.schemes.keys import any_equal, base64_mac, check_whsec, new_whsec, whsec_key
from outbox.signing.schemes.scheme import ALONG, Claim, KeyRule, Scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from outbox.signing.schemes.scheme import Lines

__all__ = ["MESSAGE_ID", "STANDARD", "SVIX", "TIMESTAMP"]

MESSAGE_ID = re.compile(r"[!-\-/-~]{1,256}")  # visible ASCII without the dot
TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}")
_MAX_SIGNATURES = 64  # in one header; a sender has a handful of live secrets


def _check(text: object) -> str:
    """Return a secret in its canonical spelling; by its prefix it is one of v1a, or of v1."""
    if isinstance(text, str) and text.startswith(ed25519.PUBLIC):
        raise SubscriptionError("secret: whpk_ is the public key, which only verifies; give the whsk_ key")
    if isinstance(text, str) and text.startswith(ed25519.SIGNING):
        return ed25519.check(text)
    return check_whsec(text)


def _public_key(secret: str) -> str:
    return ed25519.public_key(secret) if secret.startswith(ed25519.SIGNING) else ""


def _token(secret: str) -> Callable[[bytes], bytes]:
    """Return the function from signed bytes to one element of the signature header."""
    if isinstance(secret, str) and secret.startswith(ed25519.SIGNING):
        return ed25519.signing(secret)
    return _v1(secret)


def _v1(secret: str) -> Callable[[bytes], bytes]:
    return base64_mac(whsec_key(secret), b"v1,")


def _sign(template: bytes, token: Callable[[str], Callable[[bytes], bytes]], secrets: Sequence[str]) -> Lines:
    tokens = [token(secret) for secret in secrets]

    def lines(message_id: bytes, _type: bytes, timestamp: bytes, body: bytes) -> bytes:
        signed = b"%b.%b.%b" % (message_id, timestamp, body)
        return template % (message_id, timestamp, b" ".join([token(signed) for token in tokens]))

    return lines


def _sign_svix(secrets: Sequence[str]) -> Lines:
    svix = _sign(b"svix-id: %b\r\nsvix-timestamp: %b\r\nsvix-signature: %b\r\n", _v1, secrets)

    def lines(message_id: bytes, type_: bytes, timestamp: bytes, body: bytes) -> bytes:
        along = b"webhook-id: %b\r\nwebhook-timestamp: %b\r\n" % (message_id, timestamp)
        return svix(message_id, type_, timestamp, body) + along

    return lines


def _judge(names: tuple[str, str, str], secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> Claim:
    message_id, timestamp, signatures = (headers[name] for name in names)
    if not MESSAGE_ID.fullmatch(message_id):
        raise SignatureError(f"{names[0]}: must be visible ASCII without a dot")
    if not TIMESTAMP.fullmatch(timestamp):
        raise SignatureError(f"{names[1]}: must be whole seconds since 1970")
    tokens = signatures.encode("ascii", "replace").split(b" ")
    if len(tokens) > _MAX_SIGNATURES:
        raise SignatureError(f"{names[2]}: {len(tokens)} signatures, at most {_MAX_SIGNATURES} are tried")
    signed = b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body)
    matches = [_signs(secret, tokens, signed) for secret in secrets]
    if not any(matches):
        raise SignatureError(f"{names[2]}: no signature in it matches the body and any secret")
    return Claim(message_id, int(timestamp))


def _signs(secret: str, tokens: list[bytes], signed: bytes) -> bool:
    """Tell whether one of the tokens is this secret's; those of versions it has not are passed over."""
    if isinstance(secret, str) and secret.startswith((ed25519.SIGNING, ed25519.PUBLIC)):
        matches = ed25519.verifying(secret)
        return any(matches(token, signed) for token in tokens if token.startswith(b"v1a,"))
    return any_equal([_v1(secret)(signed)], tokens)


def _named(name: str, prefix: str, keys: KeyRule, sign: Callable[[Sequence[str]], Lines]) -> Scheme:
    names = (f"{prefix}-id", f"{prefix}-timestamp", f"{prefix}-signature")
    sends = tuple(dict.fromkeys((*names, *ALONG)))
    return Scheme(name, names, sends, several_signatures=True, keys=keys, sign=sign, judge=partial(_judge, names))


STANDARD = _named(
    "standard",
    "webhook",
    KeyRule(_check, {"hmac": new_whsec, "ed25519": ed25519.new}, _public_key),
    partial(_sign, b"webhook-id: %b\r\nwebhook-timestamp: %b\r\nwebhook-signature: %b\r\n", _token),
)
SVIX = _named("svix", "svix", KeyRule(check_whsec, {"hmac": new_whsec}), _sign_svix)
