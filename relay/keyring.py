"""The private keys of a relay: they alone open what applications seal."""

from __future__ import annotations

from outbox.errors import OutboxError

__all__ = ["KeyUnavailableError", "Keyring"]

SEALED = "sealed:"


class KeyUnavailableError(OutboxError):
    """A secret is sealed to a key that this relay does not hold."""


class Keyring:
    """Opens the secrets of subscriptions; what lies in clear passes through."""

    def open(self, text: str, subscription_id: bytes, kind: str) -> str:
        """Return the secret. Raises KeyUnavailableError when no key fits."""
        if text.startswith(SEALED):
            raise KeyUnavailableError(f"secret: the {kind} secret of {subscription_id.hex()} is sealed to another key")
        return text
