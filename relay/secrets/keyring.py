"""The private keys of a relay: only they open what applications seal.

A private key is written as `rsk_` and the base64 of its 32 bytes (X25519). `relay secrets keygen` makes one. Relays get
theirs as the option secret_key; during a change of keys there are several, the newest first.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING
from uuid import UUID

from outbox.errors import OutboxError
from outbox.ids import text_id
from outbox.sealing import PREFIX, SealedText, SealingKey, info, suite
from outbox.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

__all__ = ["KeyUnavailableError", "Keyring", "new_private_key", "private_keys"]

_PREFIX = "rsk_"
_SEPARATORS = re.compile(r"[\s,]+")
_BYTES = 32


class KeyUnavailableError(OutboxError):
    """A secret cannot be opened: its key is not here, it is damaged, or it was sealed for another subscription."""


class Keyring:
    """Opens the secrets of subscriptions; returns those in clear as they are.

    `newest` is the public half of the first key, None without a key.
    """

    def __init__(self, private_keys: Iterable[Secret] = ()) -> None:
        """Hold these private keys (`rsk_…`), newest first."""
        self._keys: dict[str, X25519PrivateKey] = {}
        self.newest: SealingKey | None = None
        for text in private_keys:
            key = _load(text)
            public = SealingKey(key.public_key().public_bytes_raw())
            self.newest = self.newest or public
            self._keys[public.id] = key

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    @property
    def ids(self) -> list[str]:
        """The ids of its keys, newest first."""
        return list(self._keys)

    def open(self, stored: Secret, subscription_id: bytes, kind: str) -> Secret:
        """Return the secret in clear from its stored text, which is sealed or in clear.

        Raises KeyUnavailableError when no key fits, or the text is damaged or was sealed for another subscription or
        kind. Its message says which, and holds nothing of the secret.
        """
        text = stored.reveal()
        if not text.startswith(PREFIX):
            return stored
        name = f"the {kind} secret of {text_id('sub', UUID(bytes=subscription_id))}"
        sealed = SealedText.parse(text)
        if sealed is None:
            raise KeyUnavailableError(f"{name} is damaged: it is not sealed:1:<key id>:<base64>; store it again")
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise KeyUnavailableError(
                f"{name} is sealed to key {sealed.key_id}, which this relay does not hold; add it to secret_key"
            )
        return _decrypt(sealed, key, name, info(subscription_id, kind))


def _decrypt(sealed: SealedText, key: X25519PrivateKey, name: str, binding: bytes) -> Secret:
    from cryptography.exceptions import InvalidTag

    try:
        return Secret(suite().decrypt(sealed.ciphertext, key, info=binding).decode())
    except (InvalidTag, ValueError):
        raise KeyUnavailableError(
            f"{name} does not open with its key {sealed.key_id}: it is damaged, or was sealed for another "
            "subscription or kind; store it again"
        ) from None


def _load(text: Secret) -> X25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(_bytes_of(text.reveal()))


def private_keys(text: str) -> tuple[Secret, ...]:
    """Return the private keys in `text`, in its order: separated by commas or white space, each in quotes or not.

    Raises ValueError; its message repeats nothing of the text.
    """
    words = [word.strip("\"'\ufeff") for word in _SEPARATORS.split(text)]
    found = tuple(Secret(word) for word in words if word)
    for key in found:
        _bytes_of(key.reveal())
    return found


def new_private_key() -> tuple[Secret, SealingKey]:
    """Return a new private key (`rsk_…`) and its public half."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    text = _PREFIX + b64encode(key.private_bytes_raw()).decode()
    return Secret(text), SealingKey(key.public_key().public_bytes_raw())


def _bytes_of(text: str) -> bytes:
    """Return the 32 bytes of `rsk_…`; its padding may be missing. Raises ValueError."""
    encoded = text.removeprefix(_PREFIX)
    try:
        raw = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if encoded == text or len(raw) != _BYTES:
        raise ValueError("not rsk_ and the base64 of 32 bytes; `relay secrets keygen` makes one")
    return raw
