"""Seal secrets before they are stored: whoever writes one cannot read it back; only a relay can open it.

Each secret is encrypted to the newest public key in `outbox.sealing_keys`; the private key is in the relays'
configuration and never in the database. While there is no such key, secrets are stored in clear.

    sealed:1:<key id>:<base64>

- key id: the first 16 hexadecimal digits of the SHA-256 of the public key's 32 bytes.
- base64 (RFC 4648 §4, with padding) of the encapsulated key (32 bytes) and the ciphertext after it: what HPKE
  (RFC 9180) makes in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305 (0x0020, 0x0001, 0x0003),
  single shot, without associated data.
- info: `outbox-relay`, the 16 bytes of the subscription's UUID, and the kind (`signing`, `headers`, `authentication`,
  `tls`) in ASCII. A ciphertext that is moved to another subscription or kind therefore cannot be opened.
- plaintext: the secret in UTF-8.

Any HPKE library of any language can make that, with the key from `select id, key from outbox.sealing_keys order by
created_at desc, id desc limit 1`. Without such a library, insert the text in clear: a relay seals it within a minute.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from outbox.errors import SubscriptionError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite
else:
    Suite = Any  # cryptography is not loaded before it is needed

__all__ = ["NEWEST_KEY", "PREFIX", "SealedText", "SealingKey", "info", "newest_key", "seal", "suite"]

PREFIX = "sealed:"
"""Every sealed text begins with this, and no text in clear does."""

NEWEST_KEY = "select id, key from outbox.sealing_keys order by created_at desc, id desc limit 1"

_SEALED = re.compile(r"sealed:1:([0-9a-f]{16}):([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A public key that secrets are sealed to: its 32 bytes."""

    public: bytes

    @classmethod
    def of(cls, text: str) -> SealingKey:
        """Read a key from base64, as `outbox.sealing_keys` holds it."""
        return cls(b64decode(text))

    @property
    def id(self) -> str:
        """Its name: 16 hexadecimal digits of its SHA-256."""
        return sha256(self.public).hexdigest()[:16]

    @property
    def text(self) -> str:
        """The key as `outbox.sealing_keys` holds it, base64."""
        return b64encode(self.public).decode()


@dataclass(frozen=True, slots=True)
class SealedText:
    """The parts of `sealed:1:…`: the id of the key it is sealed to, and the encapsulated key with the ciphertext."""

    key_id: str
    ciphertext: bytes

    @classmethod
    def parse(cls, stored: str) -> SealedText | None:
        """Return the parts, or None when the text has another form."""
        match = _SEALED.fullmatch(stored)
        if match is None:
            return None
        try:
            return cls(match[1], b64decode(match[2], validate=True))
        except ValueError:  # the padding has a wrong length
            return None


def newest_key(connection: Session | Connection) -> SealingKey | None:
    """Read the public key that secrets are sealed to now; None while they are stored in clear."""
    row = connection.execute(text(NEWEST_KEY)).one_or_none()
    return None if row is None else SealingKey.of(row.key)


def seal(clear: str, key: SealingKey, subscription_id: bytes, kind: str) -> str:
    """Return `sealed:1:…`. Only the holder of the private key can open it, for this subscription and kind alone.

    Raises:
        SubscriptionError: the text is not valid Unicode, or the key cannot be used.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    try:
        plaintext = clear.encode()
    except UnicodeEncodeError:
        raise SubscriptionError(f"{kind}: holds half a surrogate pair, which is no text; give valid Unicode") from None
    try:
        public = X25519PublicKey.from_public_bytes(key.public)
        ciphertext = suite().encrypt(plaintext, public, info=info(subscription_id, kind))
    except ValueError as error:
        raise SubscriptionError(
            f"secret: sealing key {key.id} of outbox.sealing_keys cannot be used ({error}); "
            "delete it there, or register another with `relay secrets rekey`"
        ) from None
    return f"{PREFIX}1:{key.id}:{b64encode(ciphertext).decode()}"


def info(subscription_id: bytes, kind: str) -> bytes:
    """Return what a ciphertext is bound to: the subscription (16 bytes) and the kind of secret."""
    return b"outbox-relay" + subscription_id + kind.encode()


@cache
def suite() -> Suite:
    """Return the one HPKE suite: X25519, HKDF-SHA256, ChaCha20-Poly1305. Imports `cryptography`."""
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
