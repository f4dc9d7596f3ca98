"""Ed25519 keys of Standard Webhooks: `whsk_` signs, `whpk_` verifies. Loads `cryptography` when one is used.

`whsk_` is the base64 of the 32 bytes of RFC 8032's private key, or, as Svix writes it, of those and the public key's 32
bytes; the latter is the canonical spelling. `whpk_` is the base64 of the public key.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING

from outbox.errors import SubscriptionError
from outbox.signing.schemes.keys import decoded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["PUBLIC", "SIGNING", "check", "new", "public_key", "signing", "verifying"]

SIGNING = "whsk_"
PUBLIC = "whpk_"
_PREFIX = b"v1a,"

_FIELD = 2**255 - 19
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_LOW_ORDER = frozenset((0, 1, _FIELD - 1, _ORDER_8, _FIELD - _ORDER_8))
"""The y of the eight points whose order divides 8. No private key has such a public one."""


def new() -> str:
    """Return a new signing key, `whsk_…`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _text(Ed25519PrivateKey.generate())


def check(secret: str) -> str:
    """Return a signing key in its canonical spelling. Raises SubscriptionError."""
    text = _text(_private(secret))
    given = secret.rstrip("=")
    seed_alone = SIGNING + base64.b64encode(decoded(text.removeprefix(SIGNING), SIGNING)[:32]).decode()
    if given not in (text.rstrip("="), seed_alone.rstrip("=")):
        raise SubscriptionError("secret: its last base64 character has spare bits set; encode the bytes again")
    return text


def public_key(secret: str) -> str:
    """Return the `whpk_…` of a `whsk_…`."""
    return PUBLIC + base64.b64encode(_private(secret).public_key().public_bytes_raw()).decode()


def signing(secret: str) -> Callable[[bytes], bytes]:
    """Return the function from bytes to their signature, `v1a,…`."""
    key = _private(secret)

    def sign(signed: bytes) -> bytes:
        return _PREFIX + binascii.b2a_base64(key.sign(signed), newline=False)

    return sign


def verifying(key: str) -> Callable[[bytes, bytes], bool]:
    """Return the function that tells whether `v1a,…` signs these bytes, for a `whpk_…` or a `whsk_…`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if key.startswith(SIGNING):
        public = _private(key).public_key()
    else:
        raw = _bytes(key, PUBLIC, (32,))
        _require_order(raw)
        public = Ed25519PublicKey.from_public_bytes(raw)

    def matches(token: bytes, signed: bytes) -> bool:
        encoded = token.removeprefix(_PREFIX)
        try:
            signature = base64.b64decode(encoded, validate=True)
        except ValueError:
            return False
        if token != _PREFIX + base64.b64encode(signature):  # one spelling only
            return False
        try:
            public.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return matches


def _private(secret: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    raw = _bytes(secret, SIGNING, (32, 64))
    key = Ed25519PrivateKey.from_private_bytes(raw[:32])
    if raw[32:] not in (b"", key.public_key().public_bytes_raw()):
        raise SubscriptionError("secret: the second half of a whsk_ key must be the public key of the first")
    return key


def _require_order(raw: bytes) -> None:
    """Raise SubscriptionError for a point of low order: with one as the key, one signature fits many messages."""
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _FIELD:
        raise SubscriptionError("secret: the whpk_ key is not written as RFC 8032 asks; take the sender's key again")
    if y in _LOW_ORDER:
        raise SubscriptionError("secret: the whpk_ key is a point of low order, by which anyone could forge")


def _bytes(text: str, prefix: str, sizes: tuple[int, ...]) -> bytes:
    raw = decoded(text.removeprefix(prefix), prefix)
    if len(raw) not in sizes:
        expected = " or ".join(map(str, sizes))
        raise SubscriptionError(f"secret: {prefix} holds {len(raw)} bytes; an Ed25519 key has {expected}")
    return raw


def _text(key: Ed25519PrivateKey) -> str:
    raw = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return SIGNING + base64.b64encode(raw).decode()
