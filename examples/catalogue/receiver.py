"""What somebody wrote who receives from the catalogue: the signature is over the raw body."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from examples.receiver import receiver


def verify(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Compare the signature with that of the body as it came."""
    expected = hmac.new(secret.encode("utf-8"), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"sha256={expected}", headers.get("x-webhook-signature", ""))


app = receiver(verify)
