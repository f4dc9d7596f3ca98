"""Redact a request's secrets in the receiver's answer before the answer is kept."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.model.outcome import Outcome

__all__ = ["MIN_REDACTED", "redact", "redact_echoes", "spellings_of"]

MIN_REDACTED = 6
"""Shorter values (in characters) are not redacted: they protect nothing and occur everywhere."""

REDACTED = b"***"


def spellings_of(values: Iterable[str]) -> tuple[bytes, ...]:
    """Return each value as it was sent, and as JSON, HTML and URLs write it, longest first."""
    spellings: set[str] = set()
    for value in values:
        in_json = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
        in_json += [text.replace("/", "\\/") for text in in_json]  # PHP's default
        in_html = [html.escape(value, quote=False), html.escape(value), html.escape(value).replace("&#x27;", "&#39;")]
        in_urls = [quote(value), quote(value, safe=""), quote_plus(value)]
        spellings.update([value], in_json, in_html, in_urls)
    return tuple(sorted((spelling.encode() for spelling in spellings), key=len, reverse=True))


def redact_echoes(outcome: Outcome, secrets: Sequence[bytes]) -> Outcome:
    """Redact the request's secrets in the answer. `secrets`: their spellings, longest first."""
    if not outcome.excerpt and not outcome.headers:
        return outcome
    headers = outcome.headers and redact(outcome.headers.encode("latin-1"), secrets).decode("latin-1")
    return outcome._replace(excerpt=redact(outcome.excerpt, secrets), headers=headers)


def redact(text: bytes, secrets: Sequence[bytes]) -> bytes:
    """Redact secrets in a text that may be cut. `secrets`: their spellings, longest first."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
        at = max(0, len(text) - len(secret) + 1)  # the text may be cut inside a secret: look for its beginning
        while (at := text.find(secret[:MIN_REDACTED], at)) >= 0:
            if secret.startswith(text[at:]):
                text = text[:at] + REDACTED
            at += 1
    return text
