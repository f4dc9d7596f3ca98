"""What a user of SoundHash wrote: the verification that its documentation gives."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from examples.receiver import receiver


def verify(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Compare the signature, in hexadecimal, with that of the body."""
    expected = hmac.new(secret.encode("utf-8"), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, headers.get("x-webhook-signature", ""))


app = receiver(verify)
