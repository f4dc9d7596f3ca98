"""Redact secrets that got into a traceback or log line in spite of everything; they are recognised by their form.

Three others redact what they know: relay/message/echoes.py a request's secrets in the receiver's answer,
outbox/formats/shown_urls.py what is secret in a subscription's URL, outbox/recording/named_errors.py the payload in an
error of record().
"""

from __future__ import annotations

import re

__all__ = ["redact"]

_SECRETS = [
    (re.compile(r"\b(whsec_|whsk_|rsk_|rtk_|ptl_|pts_)[A-Za-z0-9+/=_-]+"), r"\1***"),
    (re.compile(r"(//[^/\s:@'\"]*):[^\s'\"]*@"), r"\1:***@"),
    (re.compile(r"(password['\"]?\s*[=:]\s*['\"]?)[^\s'\",)]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(authorization['\"]?\s*[=:]\s*b?['\"]?)[^\r\n'\",)]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(bearer|basic) [A-Za-z0-9+/=._~-]{16,}", re.IGNORECASE), r"\1 ***"),
]


def redact(text: str) -> str:
    """Return the text with signing secrets, private keys, passwords and Authorization values redacted."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
