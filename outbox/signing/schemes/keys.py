"""Secrets for HMAC (`whsec_` and base64, or text as it stands), and the HMAC itself, prepared once."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets as randomness
from collections.abc import Callable
from functools import partial
from typing import Any

from outbox.errors import SubscriptionError
from outbox.signing.schemes.scheme import KeyRule

Mac = Callable[[bytes], bytes]

__all__ = ["KEY_RULES", "any_equal", "check_whsec", "decoded", "mac", "new_whsec", "whsec_key"]

_PREFIX = "whsec_"
_WHSEC_BYTES = range(24, 65)
_TEXT_BYTES = range(12, 513)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_JWT = re.compile(r"eyJ[\w-]*\.[\w-]*\.[\w-]*")
_OTHER_THINGS = ("whpk_", "whsk_", "sk_", "rk_", "pk_", "-----BEGIN ", "sealed:")


def new_whsec() -> str:
    """Return `whsec_` and the base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(randomness.token_bytes(32)).decode()


def check_whsec(text: object) -> str:
    """Return a secret in its canonical spelling, `whsec_` + padded base64; prefix and padding may be missing.

    Raises SubscriptionError for anything else that is not 24 to 64 bytes in standard base64.
    """
    key = whsec_key(text)
    if len(key) not in _WHSEC_BYTES:
        raise SubscriptionError(f"secret: {len(key)} bytes long; use 24 to 64 random bytes in base64")
    canonical = base64.b64encode(key).decode()
    if canonical.rstrip("=") != str(text).removeprefix(_PREFIX).rstrip("="):
        raise SubscriptionError("secret: its last base64 character has spare bits set; encode the bytes again")
    return _PREFIX + canonical


def whsec_key(secret: object) -> bytes:
    """Return the bytes of a secret, written with or without `whsec_` and padding, of any length above 0."""
    if not isinstance(secret, str):
        raise SubscriptionError("secret: must be text, whsec_ and base64")
    encoded = secret.removeprefix(_PREFIX)
    if not encoded:
        raise SubscriptionError("secret: empty; anyone could forge its signatures")
    return decoded(encoded, _PREFIX)


def decoded(encoded: str, prefix: str) -> bytes:
    """Return what standard base64 holds, padded fully or not at all. Raises SubscriptionError naming `prefix`."""
    unpadded = encoded.rstrip("=")
    padded = unpadded + "=" * (-len(unpadded) % 4)
    if not _BASE64.fullmatch(encoded) or encoded not in (unpadded, padded) or len(unpadded) % 4 == 1:
        raise SubscriptionError(f"secret: must be {prefix} and standard base64, without spaces or line ends")
    return base64.b64decode(padded)


def text_key(secret: object) -> bytes:
    """Return the bytes of a secret that is used as it stands: UTF-8, with its prefix."""
    if not isinstance(secret, str):
        raise SubscriptionError("secret: must be text")
    if not secret.strip():
        raise SubscriptionError("secret: empty; anyone could forge its signatures")
    if secret.startswith("whpk_"):
        raise SubscriptionError("secret: whpk_ is a public key; anyone could forge its signatures in this scheme")
    try:
        return secret.encode()
    except UnicodeEncodeError:
        raise SubscriptionError("secret: has a lone surrogate, which is not Unicode text") from None


def _check_text(text: object) -> str:
    """Return a secret that is used as it stands. Raises SubscriptionError when it looks like a mistake."""
    size = len(text_key(text))
    secret = str(text)
    if size not in _TEXT_BYTES:
        raise SubscriptionError(f"secret: {size} bytes long; use {_TEXT_BYTES[0]} to {_TEXT_BYTES[-1]}")
    if not secret.isprintable() or secret != secret.strip():
        raise SubscriptionError(
            "secret: has a control or invisible character, or a space at its end; this scheme uses it as it stands"
        )
    if secret.startswith(_OTHER_THINGS) or _JWT.fullmatch(secret):
        raise SubscriptionError("secret: looks like a key or token of another kind; give the webhook's own secret")
    return secret


KEY_RULES = {
    "text": KeyRule(text_key, _check_text, {"hmac": lambda: randomness.token_hex(32)}),
    "whsec": KeyRule(whsec_key, check_whsec, {"hmac": new_whsec}),
    "whsec-as-text": KeyRule(text_key, _check_text, {"hmac": new_whsec}),
}
"""The rules by a declaration's `key`. A text is 12 to 512 bytes and printable; `whsec_` holds 24 to 64 bytes."""


def mac(key: bytes, hash_name: str, encoding: str, before: str = "", after: str = "") -> Mac:
    """Return the function from bytes to their HMAC in `hex` (lower case) or `base64`, between two texts.

    This is RFC 2104 written out: both padded keys are hashed once and copied for each message. It takes two thirds of
    the time of a copied `hmac.new(key)`.
    """
    new = _HASHES[hash_name]
    block = new().block_size
    padded = (new(key).digest() if len(key) > block else key).ljust(block, b"\0")
    inner, outer = new(padded.translate(_INNER_PAD)), new(padded.translate(_OUTER_PAD))
    encode, start, end = _ENCODINGS[encoding], before.encode("ascii"), after.encode("ascii")

    return partial(_mac, inner, outer, encode, start, end)


# Not a closure, whose cells take as much again: a relay knows thousands of these.
def _mac(inner: Any, outer: Any, encode: Mac, start: bytes, end: bytes, signed: bytes) -> bytes:
    inside, outside = inner.copy(), outer.copy()
    inside.update(signed)
    outside.update(inside.digest())
    return start + encode(outside.digest()) + end


_HASHES = {"sha256": hashlib.sha256, "sha512": hashlib.sha512, "sha1": hashlib.sha1}
_INNER_PAD, _OUTER_PAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_ENCODINGS: dict[str, Mac] = {"hex": binascii.hexlify, "base64": partial(binascii.b2a_base64, newline=False)}


def any_equal(expected: list[bytes], given: list[bytes]) -> bool:
    """Tell in constant time whether a given signature is an expected one.

    They are compared as text, not decoded: lower-case hexadecimal and canonical base64 have one spelling.
    """
    matches = [hmac.compare_digest(ours, theirs) for theirs in given for ours in expected]
    return any(matches)
