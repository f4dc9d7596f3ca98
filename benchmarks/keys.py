"""The key pair that secrets are sealed to in every measurement, as they should be in production."""

from __future__ import annotations

from relay.secrets.keyring import new_private_key

__all__ = ["PRIVATE", "PUBLIC"]

PRIVATE, PUBLIC = new_private_key()
