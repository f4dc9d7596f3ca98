"""Whether a secret is still the same: told by a slow, salted hash, since a sealed one cannot be read.

    scrypt:1:<salt>:<hash>

salt is 16 random bytes, hash 32 bytes of scrypt (RFC 7914) with N = 4096, r = 8, p = 1, both in base64. A guess costs
4 MiB and some ten milliseconds, as much as one comparison costs us. Whoever may not read secrets may not read it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode

__all__ = ["fingerprint_of", "is_fingerprint_of"]

_BEGINNING = "scrypt:1:"


def fingerprint_of(text: str) -> str:
    """Return a new fingerprint of a secret's text."""
    salt = secrets.token_bytes(16)
    return f"{_BEGINNING}{b64encode(salt).decode()}:{b64encode(_hash(text, salt)).decode()}"


def is_fingerprint_of(fingerprint: str, text: str) -> bool:
    """Tell whether this is a fingerprint of this text; what is none is of no text."""
    salt, _, digest = fingerprint.removeprefix(_BEGINNING).partition(":")
    if not fingerprint.startswith(_BEGINNING):
        return False
    try:
        return hmac.compare_digest(_hash(text, b64decode(salt, validate=True)), b64decode(digest, validate=True))
    except ValueError:
        return False


def _hash(text: str, salt: bytes) -> bytes:
    return hashlib.scrypt(text.encode("utf-8", "surrogatepass"), salt=salt, n=4096, r=8, p=1, dklen=32)
