"""What a user of notely wrote: the verification that notely's documentation gives its users in Python."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping

from examples.receiver import receiver


def verify(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Compare the signature with that of the compact JSON which the receiver makes of the parsed body."""
    payload = json.dumps(json.loads(body), separators=(",", ":"))
    expected = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, headers.get("x-webhook-signature", "").removeprefix("sha256="))


app = receiver(verify)
