"""The last net: what may have slipped into a traceback or a log line, masked by its look."""

from __future__ import annotations

import re

__all__ = ["redacted"]

_SECRETS = [
    (re.compile(r"\b(whsec_|whsk_|rsk_)[A-Za-z0-9+/=_-]+"), r"\1***"),
    (re.compile(r"(//[^/\s:@'\"]*):[^\s'\"]*@"), r"\1:***@"),
    (re.compile(r"(password['\"]?\s*[=:]\s*['\"]?)[^\s'\",)]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(authorization['\"]?\s*[=:]\s*b?['\"]?)[^\r\n'\",)]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(bearer|basic) [A-Za-z0-9+/=._~-]{16,}", re.IGNORECASE), r"\1 ***"),
]


def redacted(text: str) -> str:
    """Return the text with signing secrets, private keys, passwords and Authorization values masked."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
